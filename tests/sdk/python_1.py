"""The calls of the Python SDK 1.0.7, as people write them, against the emulator."""
# mypy: ignore-errors

from __future__ import annotations

import io
import json
from collections.abc import Callable
from importlib import metadata

import httpx
import replicate
from checks import BASE, COMMUNITY, OFFICIAL, PICTURE, TEXT, Receiver, check, control, run_checks
from checks import settings as emulator_settings
from replicate.exceptions import ModelError, ReplicateError
from replicate.helpers import FileOutput
from replicate.webhook import InvalidSignatureError, Webhooks, WebhookSigningSecret

client = replicate.Client(api_token="r8_test", base_url=BASE)
VERSION = COMMUNITY.partition(":")[2]


def refused(call: Callable[[], object]) -> ReplicateError:
    try:
        call()
    except ReplicateError as error:
        return error
    raise AssertionError("not refused")


@check
def sdk_version() -> None:
    assert metadata.version("replicate") == "1.0.7"


@check
def models_get() -> None:
    model = client.models.get(OFFICIAL)
    schemas = model.latest_version.openapi_schema["components"]["schemas"]
    assert schemas["Input"]["required"] == ["prompt"]
    assert model.default_example.metrics["predict_time"] > 0


@check
def models_list() -> None:
    assert OFFICIAL in [f"{m.owner}/{m.name}" for m in client.models.list()]


@check
def models_search() -> None:
    assert [m.name for m in client.models.search("flux")] == ["flux-schnell"]


@check
def versions_list() -> None:
    versions = client.models.get(COMMUNITY.partition(":")[0]).versions.list()
    assert [v.id for v in versions] == [VERSION]


@check
def versions_get() -> None:
    version = client.models.get(COMMUNITY.partition(":")[0]).versions.get(VERSION)
    assert version.openapi_schema["components"]["schemas"]["Output"]["format"] == "uri"


@check
def versions_of_an_official_model_404() -> None:
    error = refused(client.models.get(OFFICIAL).versions.list)
    assert error.status == 404
    assert "official model and does not expose a list of versions" in error.detail


@check
def run_official() -> None:
    output = client.run(OFFICIAL, input={"prompt": "a fox", "num_outputs": 2})
    assert len(output) == 2
    assert httpx.get(output[1]).content.startswith(b"\x89PNG")


@check
def run_community() -> None:
    output = client.run(COMMUNITY, input={"image": PICTURE})
    assert httpx.get(output).headers["content-type"] == "image/png"


@check
def run_longer_than_the_wait() -> None:
    with emulator_settings(run_seconds=2):
        assert client.run(OFFICIAL, input={"prompt": "slow"}, wait=1)


@check
def run_with_a_file() -> None:
    with emulator_settings(data_uris=True):
        output = client.run(COMMUNITY, input={"image": io.BytesIO(b"a picture")})
    assert isinstance(output, FileOutput)
    used = control("predictions")[0]["input"]["image"]
    assert used.startswith(f"{BASE}/v1/files/")


@check
def run_that_fails() -> None:
    control("faults", {"fault": "fail", "error": "CUDA out of memory"})
    try:
        client.run(OFFICIAL, input={"prompt": "x"})
    except ModelError as error:
        message = error.prediction.error
    assert message == "CUDA out of memory"


@check
def create_get_and_wait() -> None:
    prediction = client.predictions.create(version=VERSION, input={"image": PICTURE})
    assert prediction.status == "starting"
    prediction.wait()
    again = client.predictions.get(prediction.id)
    assert again.status == "succeeded"
    assert again.output == prediction.output
    assert again.metrics["predict_time"] > 0


@check
def create_that_waits() -> None:
    prediction = client.models.predictions.create(OFFICIAL, input={"prompt": "x"}, wait=5)
    assert prediction.status == "succeeded"


@check
def list_in_pages_with_webhooks() -> None:
    with emulator_settings(page_size=2):
        for n in range(3):
            client.models.predictions.create(
                OFFICIAL, input={"prompt": f"{n}"}, webhook=f"http://127.0.0.1:9/{n}"
            )
        pages = replicate.pagination.paginate(client.predictions.list)
        found = [*next(pages), *next(pages)]
    assert [p.input["prompt"] for p in found[:3]] == ["2", "1", "0"]
    listed = client._client.get("/v1/predictions").json()["results"]
    assert [p["webhook"][-2:] for p in listed[:3]] == ["/2", "/1", "/0"]


@check
def cancel() -> None:
    control("faults", {"fault": "hang"})
    prediction = client.models.predictions.create(OFFICIAL, input={"prompt": "x"})
    prediction.cancel()
    assert prediction.status == "canceled"
    assert client.predictions.cancel(prediction.id).status == "canceled"


@check
def webhook_and_secret() -> None:
    receiver = Receiver()
    client.models.predictions.create(
        OFFICIAL,
        input={"prompt": "Ünïcode"},
        webhook=receiver.url,
        webhook_events_filter=["completed"],
    )
    headers, body = receiver.wait()
    secret = client.webhooks.default.secret()
    Webhooks.validate(headers=headers, body=body, secret=secret, tolerance=300)
    assert json.loads(body)["status"] == "succeeded"
    try:
        wrong = WebhookSigningSecret(key="whsec_" + "A" * 32)
        Webhooks.validate(headers=headers, body=body, secret=wrong)
    except InvalidSignatureError:
        return
    raise AssertionError("a wrong secret passed")


@check
def files() -> None:
    file = client.files.create(io.BytesIO(b"hello"), filename="a.txt", metadata={"n": 1})
    assert (file.content_type, file.size, file.metadata) == ("text/plain", 5, {"n": 1})
    assert client.files.get(file.id).checksums["sha256"].startswith("2cf24dba")
    assert file.id in [f.id for f in client.files.list()]
    assert client.files.delete(file.id)
    assert refused(lambda: client.files.get(file.id)).status == 404


@check
def file_too_large_413() -> None:
    with emulator_settings(max_upload_bytes=4):
        error = refused(lambda: client.files.create(io.BytesIO(b"hello"), filename="a"))
    assert (error.status, error.detail) == (413, "Files must be less than 100MB in size")


@check
def file_outputs() -> None:
    with emulator_settings(data_uris=True):
        output = client.run(OFFICIAL, input={"prompt": "x"})
    assert isinstance(output[0], FileOutput)
    assert output[0].read().startswith(b"\x89PNG")


@check
def text_is_streamed() -> None:
    events = list(client.stream(TEXT, input={"prompt": "two\nlines"}))
    assert [e.event.value for e in events[-2:]] == ["output", "done"]
    text = "".join(e.data for e in events[:-1])
    assert text.startswith("You asked: two\nlines\n\n")
    assert text == "".join(client.predictions.list()[0].output)


@check
def deployments() -> None:
    made = client.deployments.create(
        name="fast", model=OFFICIAL, version="", hardware="cpu", min_instances=0, max_instances=1
    )
    got = client.deployments.get("emulator/fast")
    assert got.current_release.model == made.current_release.model == OFFICIAL
    assert "fast" in [d.name for d in client.deployments.list()]
    prediction = got.predictions.create(input={"prompt": "x"})
    prediction.wait()
    assert prediction.status == "succeeded"
    assert control("predictions")[0]["deployment"] == "emulator/fast"


@check
def trainings() -> None:
    training = client.trainings.create(
        model=("ostris", "flux-dev-lora-trainer"),
        version="e440909d",
        input={"input_images": "https://example.com/a.zip"},
        destination="emulator/mine",
    )
    client.trainings.get(training.id)
    assert training.id in [t.id for t in client.trainings.list()]
    training.cancel()
    assert training.status == "canceled"


@check
def account_and_hardware() -> None:
    assert client.accounts.current().type == "organization"
    assert "cpu" in [h.sku for h in client.hardware.list()]


@check
def unauthenticated_401() -> None:
    error = refused(replicate.Client(api_token="nonsense", base_url=BASE).models.list)
    assert (error.status, error.title) == (401, "Unauthenticated")
    assert error.detail == "You did not pass a valid authentication token"


@check
def no_credit_402() -> None:
    control("faults", {"fault": "create_402", "title": "Monthly spend limit reached"})
    error = refused(lambda: client.run(OFFICIAL, input={"prompt": "x"}))
    assert (error.status, error.title) == (402, "Monthly spend limit reached")


@check
def unknown_404() -> None:
    assert refused(lambda: client.models.get("no/such")).status == 404
    assert refused(lambda: client.predictions.get("none")).status == 404
    community_name = COMMUNITY.partition(":")[0]
    assert refused(lambda: client.run(community_name, input={})).status == 404


@check
def invalid_input_422() -> None:
    error = refused(lambda: client.run(OFFICIAL, input={"num_outputs": 9}))
    assert (error.status, error.title) == (422, "Input validation failed")
    assert error.detail == (
        "- input: prompt is required\n- input.num_outputs: Must be less than or equal to 4\n"
    )


@check
def invalid_version_422() -> None:
    hashes = ["0" * 64, client.models.get(OFFICIAL).latest_version.id]
    for version in hashes:
        error = refused(lambda v=version: client.predictions.create(version=v, input={}))
        assert (error.status, error.title) == (422, "Invalid version or not permitted")


@check
def throttled_429() -> None:
    control("faults", {"fault": "create_429", "retry_after": 1})
    error = refused(lambda: client.run(OFFICIAL, input={"prompt": "x"}))
    assert error.status == 429
    assert error.detail == "Request was throttled. Your rate limit resets in ~1s."


if __name__ == "__main__":
    run_checks()
