"""The calls of the Python SDK 2.0.0b4, as people write them, against the emulator."""
# mypy: ignore-errors

from __future__ import annotations

import asyncio
import io
import json
import os
import time
from collections.abc import Callable
from importlib import metadata

import httpx
import replicate
from checks import BASE, COMMUNITY, OFFICIAL, PICTURE, TEXT, Receiver, check, control, run_checks
from checks import settings as emulator_settings
from replicate.exceptions import ModelError
from replicate.lib._files import FileOutput

client = replicate.Replicate(bearer_token="r8_test", base_url=f"{BASE}/v1", max_retries=0)
OWNER, _, NAME = OFFICIAL.partition("/")
COMMUNITY_NAME, _, VERSION = COMMUNITY.partition(":")
MODEL = {"model_owner": OWNER, "model_name": NAME}
OTHER = dict(zip(("model_owner", "model_name"), COMMUNITY_NAME.split("/"), strict=True))


def refused(kind: type[replicate.APIStatusError], call: Callable[[], object]) -> dict[str, object]:
    try:
        call()
    except kind as error:
        answer = error.response
    else:
        raise AssertionError("not refused")
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.json()


@check
def sdk_version() -> None:
    assert metadata.version("replicate") == "2.0.0b4"


@check
def models_get() -> None:
    model = client.models.get(**MODEL)
    assert model.is_official
    assert model.latest_version.openapi_schema["components"]["schemas"]["Input"]["required"]
    assert model.default_example["metrics"]["predict_time"] > 0


@check
def models_list() -> None:
    assert OFFICIAL in [f"{m.owner}/{m.name}" for m in client.models.list()]


@check
def models_search() -> None:
    assert [m.name for m in client.models.search(body="flux")] == ["flux-schnell"]


@check
def versions_list() -> None:
    assert [v.id for v in client.models.versions.list(**OTHER)] == [VERSION]


@check
def versions_get() -> None:
    version = client.models.versions.get(version_id=VERSION, **OTHER)
    assert version.openapi_schema["components"]["schemas"]["Output"]["format"] == "uri"


@check
def versions_of_an_official_model_404() -> None:
    body = refused(replicate.NotFoundError, lambda: client.models.versions.list(**MODEL))
    assert "official model and does not expose a list of versions" in body["detail"]


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
def run_asynchronously() -> None:
    async def main() -> list[list[str]]:
        async with replicate.AsyncReplicate(
            bearer_token="r8_test", base_url=f"{BASE}/v1"
        ) as asynchronous:
            calls = [asynchronous.run(OFFICIAL, input={"prompt": f"{n}"}) for n in range(20)]
            return await asyncio.gather(*calls)

    assert len({output[0] for output in asyncio.run(main())}) == 20


@check
def run_with_a_file() -> None:
    client.run(COMMUNITY, input={"image": io.BytesIO(b"a picture")})
    assert control("predictions")[0]["input"]["image"].startswith(f"{BASE}/v1/files/")


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
    prediction = client.predictions.create(version=COMMUNITY, input={"image": PICTURE})
    assert prediction.status == "starting"
    done = client.predictions.wait(prediction.id)
    assert done.status == "succeeded"
    assert done.version == VERSION
    assert client.predictions.get(prediction_id=prediction.id).output == done.output


@check
def create_that_waits() -> None:
    raw = client.predictions.with_raw_response.create(
        version=OFFICIAL, input={"prompt": "x"}, prefer="wait=5"
    )
    assert raw.headers["preference-applied"] == "wait=5"
    prediction = raw.parse()
    assert (prediction.status, prediction.version) == ("succeeded", "hidden")


@check
def list_in_pages_with_webhooks() -> None:
    with emulator_settings(page_size=2):
        for n in range(3):
            client.models.predictions.create(
                **MODEL, input={"prompt": f"{n}"}, webhook=f"http://127.0.0.1:9/{n}"
            )
        listed = client.predictions.list()
        found = [prediction for prediction, _ in zip(listed, range(3), strict=False)]
    assert [p.input["prompt"] for p in found] == ["2", "1", "0"]
    assert [p.webhook[-2:] for p in found] == ["/2", "/1", "/0"]
    assert len(list(client.predictions.list(created_after=found[1].created_at))) == 2


@check
def cancel() -> None:
    control("faults", {"fault": "hang"})
    prediction = client.models.predictions.create(**MODEL, input={"prompt": "x"})
    assert client.predictions.cancel(prediction_id=prediction.id).status == "canceled"
    assert client.predictions.cancel(prediction_id=prediction.id).status == "canceled"


@check
def cancel_after() -> None:
    """Canceled while it runs; aborted, for free, before it has started."""
    with emulator_settings(minimum_cancel_after=1, cold_start_seconds=3):
        control("faults", {"fault": "hang"})
        running = client.predictions.create(
            version=OFFICIAL, input={"prompt": "x"}, cancel_after="1s"
        )
        cold = client.predictions.create(
            version=COMMUNITY, input={"image": PICTURE}, cancel_after="1"
        )
        assert running.deadline is not None
        time.sleep(1.3)
    running = client.predictions.get(prediction_id=running.id)
    assert (running.status, running.metrics.predict_time > 0.9) == ("canceled", True)
    cold = client.predictions.get(prediction_id=cold.id)
    assert (cold.status, hasattr(cold.metrics, "predict_time")) == ("aborted", False)


@check
def webhook_and_secret() -> None:
    receiver = Receiver()
    client.models.predictions.create(
        **MODEL, input={"prompt": "x"}, webhook=receiver.url, webhook_events_filter=["completed"]
    )
    headers, body = receiver.wait()
    assert client.webhooks.default.secret.get().key.startswith("whsec_")
    assert headers["webhook-signature"].startswith("v1,")
    assert json.loads(body)["status"] == "succeeded"


@check
def files() -> None:
    file = client.files.create(content=("a.txt", b"hello", "text/plain"))
    assert (file.content_type, file.size) == ("text/plain", 5)
    assert client.files.get(file_id=file.id).checksums.sha256.startswith("2cf24dba")
    assert file.id in [f.id for f in client.files.list()]
    client.files.delete(file_id=file.id)
    refused(replicate.NotFoundError, lambda: client.files.get(file_id=file.id))


@check
def file_too_large_413() -> None:
    with emulator_settings(max_upload_bytes=4):
        body = refused(replicate.APIStatusError, lambda: client.files.create(content=b"hello"))
    assert body == {"detail": "Files must be less than 100MB in size", "status": 413}


@check
def file_outputs() -> None:
    with emulator_settings(data_uris=True):
        output = client.run(OFFICIAL, input={"prompt": "x"})
    assert isinstance(output[0], FileOutput)
    assert output[0].read().startswith(b"\x89PNG")


@check
def text_is_streamed() -> None:
    # It makes a client of its own, from the environment.
    os.environ |= {"REPLICATE_API_TOKEN": "r8_test", "REPLICATE_BASE_URL": f"{BASE}/v1"}
    model = replicate.use(TEXT, streaming=True)
    text = "".join(model(prompt="two\nlines"))
    assert text.startswith("You asked: two\nlines\n\n")


@check
def deployments() -> None:
    client.deployments.create(
        name="fast", model=OFFICIAL, version="", hardware="cpu", min_instances=0, max_instances=1
    )
    where = {"deployment_owner": "emulator", "deployment_name": "fast"}
    assert client.deployments.get(**where).current_release.model == OFFICIAL
    assert "fast" in [d.name for d in client.deployments.list()]
    prediction = client.deployments.predictions.create(
        **where, input={"prompt": "x"}, prefer="wait"
    )
    assert (prediction.status, prediction.deployment) == ("succeeded", "emulator/fast")


@check
def trainings() -> None:
    training = client.trainings.create(
        model_owner="ostris",
        model_name="flux-dev-lora-trainer",
        version_id="e440909d",
        input={"input_images": "https://example.com/a.zip"},
        destination="emulator/mine",
    )
    assert training.id in [t.id for t in client.trainings.list()]
    assert client.trainings.cancel(training_id=training.id).status == "canceled"
    assert client.trainings.get(training_id=training.id).status == "canceled"


@check
def account_and_hardware() -> None:
    assert client.account.get().type == "organization"
    assert "cpu" in [h.sku for h in client.hardware.list()]


@check
def unauthenticated_401() -> None:
    stranger = client.copy(bearer_token="nonsense")
    assert refused(replicate.AuthenticationError, stranger.account.get) == {
        "title": "Unauthenticated",
        "detail": "You did not pass a valid authentication token",
        "status": 401,
    }


@check
def no_credit_402() -> None:
    control("faults", {"fault": "create_402", "title": "Billing required"})
    body = refused(replicate.APIStatusError, lambda: client.run(OFFICIAL, input={"prompt": "x"}))
    assert (body["status"], body["title"]) == (402, "Billing required")


@check
def unknown_404() -> None:
    for call in (
        lambda: client.models.get(model_owner="no", model_name="such"),
        lambda: client.predictions.get(prediction_id="none"),
        lambda: client.models.predictions.create(**OTHER, input={}),
    ):
        refused(replicate.NotFoundError, call)


@check
def invalid_input_422() -> None:
    body = refused(replicate.UnprocessableEntityError, lambda: client.run(OFFICIAL, input={}))
    assert body == {
        "title": "Input validation failed",
        "detail": "- input: prompt is required\n",
        "status": 422,
        "invalid_fields": [
            {"type": "required", "field": "input", "description": "prompt is required"}
        ],
    }


@check
def unknown_body_field_422() -> None:
    def call() -> None:
        client.predictions.create(
            version=OFFICIAL, input={"prompt": "x"}, extra_body={"idempotency_key": "1"}
        )

    body = refused(replicate.UnprocessableEntityError, call)
    assert body["invalid_fields"][0]["type"] == "additional_property_not_allowed"


@check
def invalid_version_422() -> None:
    hashes = ["0" * 64, client.models.get(**MODEL).latest_version.id, COMMUNITY_NAME]
    for version in hashes:
        body = refused(
            replicate.UnprocessableEntityError,
            lambda v=version: client.predictions.create(version=v, input={}),
        )
        assert body == {
            "title": "Invalid version or not permitted",
            "detail": "The specified version does not exist"
            " (or perhaps you don't have permission to use it?)",
            "status": 422,
        }


@check
def throttled_429() -> None:
    control("faults", {"fault": "create_429", "retry_after": 5})
    body = refused(replicate.RateLimitError, lambda: client.run(OFFICIAL, input={"prompt": "x"}))
    assert body == {
        "detail": "Request was throttled. Your rate limit resets in ~5s.",
        "status": 429,
        "retry_after": 5,
    }


if __name__ == "__main__":
    run_checks()
