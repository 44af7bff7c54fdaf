"""The emulator of a rendered project: its models, its files, its webhooks and every fault."""

from __future__ import annotations

import base64
import concurrent.futures
import hashlib
import hmac
import io
import json
import struct
import time
import wave
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]
import pytest
from httpx_sse import EventSource
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser

from tests.emulating import COMMUNITY, LANGUAGES, OFFICIAL, PICTURE, TEXT, Emulator, emulating
from tests.rendering import ROOT, Renders
from tests.sdk.checks import Receiver

CATALOGUE = json.loads((ROOT / "catalogue/models.json").read_text("utf-8"))
AUDIO, VIDEO = "meta/musicgen", "minimax/video-01"
JSON, CAPTION = "openai/whisper", "salesforce/blip"
FAULTS = {
    *("create_reset", "create_500", "create_402", "create_422", "create_429", "version_422"),
    *("abort", "hang", "fail", "output"),
    *("file_404", "file_401", "file_redirect", "file_body", "file_short", "file_endless"),
}


@pytest.fixture(scope="module", params=LANGUAGES)
def framework(request: pytest.FixtureRequest) -> str:
    return LANGUAGES[request.param]


@pytest.fixture(scope="module")
def process(framework: str, renders: Renders) -> Iterator[Emulator]:
    with emulating(renders(framework=framework, replicate_models=sorted(CATALOGUE))) as client:
        yield client


@pytest.fixture
def emulator(process: Emulator) -> Iterator[Emulator]:
    """The shared process, with its first settings and no fault on order."""
    before = process.settings()
    yield process
    process.settings(**before)
    process.delete("/_emulator/faults")


def made(emulator: Emulator, version: str = OFFICIAL, **body: Any) -> dict[str, Any]:
    answer = emulator.create(version, **{"input": {"prompt": "a fox"}} | body)
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


def any_input(model: str) -> dict[str, Any]:
    """A value for each input field that must be given."""
    values = {"string": "x", "file": PICTURE, "integer": 1, "number": 1.0, "boolean": True}
    fields = [f for f in CATALOGUE[model]["input"] if f.get("required")]
    return {f["name"]: (f.get("enum") or [values[f["type"]]])[0] for f in fields}


def reference(model: str) -> str:
    version = CATALOGUE[model]["version"]
    return f"{model}:{version}" if version else model


# --- models ---


@pytest.mark.parametrize("model", sorted(CATALOGUE))
def test_every_model_is_served_from_its_pin_and_runs(model: str, emulator: Emulator) -> None:
    pin = CATALOGUE[model]
    shown = emulator.get(f"/v1/models/{model}").json()
    schemas = shown["latest_version"]["openapi_schema"]["components"]["schemas"]
    assert shown["is_official"] == (pin["kind"] == "official")
    assert sorted(schemas["Input"]["properties"]) == sorted(f["name"] for f in pin["input"])
    assert [p["x-order"] for p in schemas["Input"]["properties"].values()] == list(
        range(len(pin["input"]))
    )
    if pin["version"]:
        assert shown["latest_version"]["id"] == pin["version"]
    example = shown["default_example"]
    assert (example and example["metrics"]["predict_time"]) == pytest.approx(pin["seconds"])
    done = emulator.ran(reference(model), **any_input(model))
    assert done["status"] == "succeeded", done
    resolve = {"components": {"schemas": schemas}} | schemas["Output"]
    jsonschema.validate(done["output"], resolve)


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 20), st.floats(-3, 20), st.text(max_size=3),
    st.sampled_from(["1:1", "16:9", "png", "webp", "https://example.com/a.png"]),
    st.lists(st.integers(), max_size=1), st.just({}),
)  # fmt: skip


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_an_input_is_refused_exactly_when_its_schema_refuses_it(
    data: st.DataObject, emulator: Emulator
) -> None:
    """The judge is jsonschema, on the schema that the emulator shows."""
    emulator.settings(run_seconds=0, cold_start_seconds=0)
    shown = emulator.get(f"/v1/models/{OFFICIAL}").json()["latest_version"]["openapi_schema"]
    schema = shown | {"$ref": "#/components/schemas/Input"}
    names = st.sampled_from([f["name"] for f in CATALOGUE[OFFICIAL]["input"]])
    asked = {"prompt": "x"} | data.draw(st.dictionaries(names, VALUES, max_size=3))
    valid = jsonschema.Draft7Validator(schema).is_valid(asked)
    answer = emulator.create(OFFICIAL, input=asked)
    assert answer.status_code == (201 if valid else 422), answer.text
    if not valid:
        problem = answer.json()
        lines = [f"- {f['field']}: {f['description']}\n" for f in problem["invalid_fields"]]
        assert problem["detail"] == "".join(lines)


@pytest.mark.parametrize(
    ("body", "kind", "where"),
    [
        ({"input": {"prompt": "x"}, "id": 1}, "additional_property_not_allowed", "(root)"),
        ({}, "required", "(root)"),
        ({"input": []}, "invalid_type", "input"),
        ({"input": {"prompt": 1}}, "invalid_type", "input.prompt"),
        ({"input": {"prompt": "x", "num_outputs": True}}, "invalid_type", "input.num_outputs"),
        ({"input": {"prompt": "x", "num_outputs": 0}}, "number_gte", "input.num_outputs"),
        ({"input": {"prompt": "x", "aspect_ratio": "1"}}, "enum", "input.aspect_ratio"),
        (
            {"input": {"prompt": "x"}, "webhook_events_filter": ["finished"]},
            "enum",
            "webhook_events_filter.0",
        ),
    ],
)
def test_a_body_that_does_not_fit(
    body: dict[str, Any], kind: str, where: str, emulator: Emulator
) -> None:
    answer = emulator.post(f"/v1/models/{OFFICIAL}/predictions", json=body)
    assert answer.status_code == 422
    assert [(f["type"], f["field"]) for f in answer.json()["invalid_fields"]] == [(kind, where)]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff"])
def test_a_body_that_is_no_object(body: bytes, emulator: Emulator) -> None:
    assert emulator.post("/v1/predictions", content=body).status_code == 400


# --- outputs ---


def decoded(png: bytes) -> tuple[int, int]:
    """Width and height of a PNG whose every chunk and row is in order."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        kind, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + data) == struct.unpack(">I", png[at + 8 + length :][:4])[0]
        chunks[kind], at = data, at + 12 + length
        if kind == b"IEND":
            break
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    rows = zlib.decompress(chunks[b"IDAT"])
    assert len(rows) == (width + 1) * height
    assert set(rows[:: width + 1]) == {0}
    return width, height


@pytest.mark.parametrize(("ratio", "size"), [("1:1", (512, 512)), ("16:9", (512, 288))])
def test_a_picture_is_one(ratio: str, size: tuple[int, int], emulator: Emulator) -> None:
    done = emulator.ran(OFFICIAL, prompt="a fox", aspect_ratio=ratio, num_outputs=2)
    files = [httpx.get(url) for url in done["output"]]
    assert [decoded(file.content) for file in files] == [size, size]
    assert files[0].headers["content-type"] == "image/png"
    assert files[0].content != files[1].content
    again = emulator.ran(OFFICIAL, prompt="a fox", aspect_ratio=ratio)
    other = emulator.ran(OFFICIAL, prompt="a cat", aspect_ratio=ratio)
    assert httpx.get(again["output"][0]).content != httpx.get(other["output"][0]).content


def test_a_sound_is_one(emulator: Emulator) -> None:
    file = httpx.get(emulator.ran(reference(AUDIO), prompt="a song")["output"])
    assert file.headers["content-type"] == "audio/wav"
    with wave.open(io.BytesIO(file.content)) as sound:
        assert sound.getnframes() == sound.getframerate()


@pytest.mark.slow
def test_a_video_is_one(emulator: Emulator, browser: Browser) -> None:
    """A browser shows it: two seconds, 160 x 90."""
    url = emulator.ran(VIDEO, prompt="a film")["output"]
    assert httpx.get(url).headers["content-type"] == "video/webm"
    page = browser.new_page()
    page.set_content(f"<video muted src='{url}'></video>")
    shown = page.evaluate(
        """async () => {
            const video = document.querySelector("video");
            await video.play();
            await new Promise((done) => (video.onended = done));
            return [video.videoWidth, video.videoHeight, video.currentTime];
        }"""
    )
    page.close()
    assert shown == [160, 90, pytest.approx(2, abs=0.3)]


def test_json_has_files_inside(emulator: Emulator) -> None:
    output = emulator.ran(reference(JSON), audio=PICTURE)["output"]
    assert httpx.get(output["txt_file"]).text == output["transcription"]
    assert output["segments"][0]["text"] == output["transcription"]


def test_text_speaks_of_the_prompt(emulator: Emulator) -> None:
    assert isinstance(emulator.ran(reference(CAPTION), image=PICTURE)["output"], str)
    pieces = emulator.ran(TEXT, prompt="Why is the sky blue?")["output"]
    assert "".join(pieces).startswith("You asked: Why is the sky blue?")


@pytest.mark.parametrize("size", [100_000, 5_000_001])
def test_outputs_of_any_size(size: int, emulator: Emulator) -> None:
    emulator.settings(output_bytes=size)
    file = httpx.get(emulator.ran(OFFICIAL, prompt="x")["output"][0])
    assert len(file.content) == int(file.headers["content-length"]) == size
    assert decoded(file.content) == (512, 512)
    assert size <= len("".join(emulator.ran(TEXT, prompt="x")["output"])) < size + 200


def test_everything_is_removed_after_its_time(emulator: Emulator) -> None:
    done = emulator.ran(OFFICIAL, prompt="x")
    assert httpx.get(done["output"][0]).status_code == 200
    emulator.settings(output_ttl_seconds=0)
    gone = emulator.get(f"/v1/predictions/{done['id']}").json()
    assert (gone["output"], gone["input"], gone["logs"], gone["data_removed"]) == (
        *(None, {}, ""),
        True,
    )
    assert gone["status"] == "succeeded"
    assert httpx.get(done["output"][0]).status_code == 404


def test_an_upload_expires(emulator: Emulator) -> None:
    url = emulator.post("/v1/files", files={"content": b"x"}).json()["urls"]["get"]
    assert emulator.get(url).status_code == 200
    emulator.settings(upload_ttl_seconds=0)
    assert emulator.get(url).status_code == 404


def test_files_as_inputs(emulator: Emulator) -> None:
    """Uploads and files of this machine are fetched; a missing one fails the prediction."""
    upload = emulator.post("/v1/files", files={"content": b"x"}).json()["urls"]["get"]
    missing = f"{emulator.url}/_files/none/x.png"
    output = emulator.ran(OFFICIAL, prompt="x")["output"][0]
    for url, status in {
        upload: "succeeded",
        output: "succeeded",
        "https://example.com/x.png": "succeeded",
        upload + "0": "failed",
        missing: "failed",
    }.items():
        done = emulator.ran(reference(COMMUNITY), image=url)
        assert (done["status"], url in (done["error"] or url)) == (status, True)


# --- time ---


def test_statuses_follow_each_other(emulator: Emulator) -> None:
    emulator.settings(cold_start_seconds=0.5, run_seconds=0.5)
    p = made(emulator, reference(COMMUNITY), input={"image": PICTURE})
    seen: list[str] = []
    while not seen or seen[-1] == "starting" or seen[-1] == "processing":
        seen.append(emulator.get(f"/v1/predictions/{p['id']}").json()["status"])
        time.sleep(0.05)
    assert list(dict.fromkeys(seen)) == ["starting", "processing", "succeeded"]
    done = emulator.finished(p["id"])
    assert 0.4 < done["metrics"]["predict_time"] < done["metrics"]["total_time"] - 0.4


def test_a_wait_is_bounded(emulator: Emulator) -> None:
    emulator.settings(run_seconds=3)
    start = time.monotonic()
    answer = emulator.create(OFFICIAL, {"Prefer": "wait=1"}, input={"prompt": "x"})
    assert 0.9 < time.monotonic() - start < 2.5
    assert (answer.status_code, answer.json()["status"]) == (202, "starting")
    assert answer.headers["preference-applied"] == "wait=1"
    emulator.settings(run_seconds=0.1, wait_says_processing=True)
    answer = emulator.create(OFFICIAL, {"Prefer": "wait"}, input={"prompt": "x"})
    assert (answer.status_code, answer.json()["status"]) == (201, "processing")
    assert answer.json()["output"]
    answer = emulator.create(OFFICIAL, {"Prefer": "wait=61"}, input={"prompt": "x"})
    assert answer.status_code == 422


@pytest.mark.parametrize(
    ("after", "seconds"), [("5", 5), ("30s", 30), ("5m", 300), ("1h30m45s", 5445)]
)
def test_cancel_after_is_read_as_replicate_reads_it(
    after: str, seconds: int, emulator: Emulator
) -> None:
    p = emulator.create(OFFICIAL, {"Cancel-After": after}, input={"prompt": "x"}).json()
    between = [
        time.mktime(time.strptime(p[key][:19], "%Y-%m-%dT%H:%M:%S"))
        for key in ("created_at", "deadline")
    ]
    assert between[1] - between[0] == pytest.approx(seconds, abs=1)


@pytest.mark.parametrize("after", ["4s", "0", "soon", "-5", ""])
def test_a_cancel_after_that_replicate_refuses(after: str, emulator: Emulator) -> None:
    answer = emulator.create(OFFICIAL, {"Cancel-After": after}, input={"prompt": "x"})
    assert answer.status_code == 422


def test_the_rate_limit(emulator: Emulator) -> None:
    emulator.settings(creates_per_minute=60, creates_burst=2)
    answers = [emulator.create(OFFICIAL, input={"prompt": "x"}) for _ in range(4)]
    assert sorted({answer.status_code for answer in answers}) == [201, 429]
    problem = answers[-1].json()
    assert problem["detail"] == "Request was throttled. Your rate limit resets in ~1s."
    assert problem["retry_after"] == 1
    time.sleep(1.1)
    assert emulator.create(OFFICIAL, input={"prompt": "x"}).status_code == 201


def told(prediction: dict[str, Any]) -> list[tuple[str, Any]]:
    """The events of a stream, with the data of those that are JSON."""
    with httpx.stream("GET", prediction["urls"]["stream"]) as answer:
        events = EventSource(answer).iter_sse()
        return [(e.event, e.data if e.event == "output" else e.json()) for e in events]


def test_streams_follow_the_text(emulator: Emulator) -> None:
    """The pieces come while it runs, in order; a failed one ends with its error."""
    emulator.settings(run_seconds=1)
    p = made(emulator, TEXT)
    start, first, events = time.monotonic(), 0.0, []
    with httpx.stream("GET", p["urls"]["stream"]) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            first = first or time.monotonic() - start
            events += [line] if line.startswith("event: ") else []
    assert first < 0.5 < 0.9 < time.monotonic() - start
    assert events == ["event: output"] * (len(events) - 1) + ["event: done"]
    emulator.order("fail", error="no memory")
    failed = made(emulator, TEXT)
    assert told(failed)[-2:] == [
        ("error", {"detail": "no memory"}),
        ("done", {"reason": "error"}),
    ]
    emulator.order("hang")
    canceled = made(emulator, TEXT)
    emulator.post(canceled["urls"]["cancel"])
    assert told(canceled)[-1] == ("done", {"reason": "canceled"})


# --- webhooks ---


def signed(emulator: Emulator, headers: dict[str, str], body: str) -> bool:
    """Whether the signature is right: an implementation of its own, from the documentation."""
    secret = emulator.get("/v1/webhooks/default/secret").json()["key"]
    key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{body}".encode()
    digest = hmac.new(key, content, hashlib.sha256).digest()
    return headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()


@pytest.mark.parametrize(
    ("events", "statuses"),
    [
        (["start"], ["processing"]),
        (["start", "completed"], ["processing", "succeeded"]),
        (["completed"], ["succeeded"]),
        (["logs"], ["processing"]),
        (None, ["processing", "succeeded"]),  # output and completed
    ],
)
def test_the_events_that_were_asked_for(
    events: list[str] | None, statuses: list[str], emulator: Emulator
) -> None:
    hook = Receiver()
    asked: dict[str, Any] = {} if events is None else {"webhook_events_filter": events}
    emulator.settings(run_seconds=0.3)
    p = made(emulator, webhook=hook.url, **asked)
    hook.wait(len(statuses))
    time.sleep(0.3)
    assert sorted(json.loads(body)["status"] for _, body in hook.got) == sorted(statuses)
    for headers, body in hook.got:
        assert signed(emulator, headers, body)
        assert not signed(emulator, headers, body + " ")
        assert json.loads(body)["id"] == p["id"]
        assert json.loads(body)["webhook"] == hook.url
        assert abs(int(headers["webhook-timestamp"]) - time.time()) < 10


def test_a_failed_delivery_is_repeated_with_the_same_id(emulator: Emulator) -> None:
    """Redirects are not followed: they are failures, as any answer that is not 2xx."""
    emulator.settings(webhook_retry_seconds=0.05)
    hook = Receiver(500, 307, 404)
    made(emulator, webhook=hook.url, webhook_events_filter=["completed"])
    hook.wait(4)
    time.sleep(0.5)
    assert len(hook.got) == 4
    assert len({headers["webhook-id"] for headers, _ in hook.got}) == 1
    assert {headers["path"] for headers, _ in hook.got} == {"/hook"}
    assert all(signed(emulator, headers, body) for headers, body in hook.got)


def test_retries_are_bounded_and_start_is_sent_once(emulator: Emulator) -> None:
    emulator.settings(webhook_retry_seconds=0.02, webhook_tries=3)
    hook = Receiver(*[500] * 20)
    made(emulator, webhook=hook.url, webhook_events_filter=["start", "completed"])
    hook.wait(4)
    time.sleep(0.5)
    assert len(hook.got) == 4


def test_webhooks_repeated_dropped_delayed_and_bare(emulator: Emulator) -> None:
    completed: dict[str, Any] = {"webhook_events_filter": ["completed"]}
    emulator.settings(webhook_repeat=2, webhook_delay=0.5, body_webhook_field=False)
    hook = Receiver()
    p = made(emulator, webhook=hook.url, **completed)
    emulator.finished(p["id"])
    assert hook.got == []
    hook.wait(3)
    assert len({headers["webhook-id"] for headers, _ in hook.got}) == 1
    assert "webhook" not in json.loads(hook.got[0][1])
    emulator.settings(webhook_repeat=0, webhook_delay=0, webhook_drop=1)
    p = made(emulator, webhook=hook.url, **completed)
    emulator.finished(p["id"])
    time.sleep(0.5)
    assert len(hook.got) == 3


def test_lists_without_the_webhook(emulator: Emulator) -> None:
    p = made(emulator, webhook="http://127.0.0.1:9/")
    assert emulator.get("/v1/predictions").json()["results"][0]["webhook"]
    emulator.settings(list_webhook_field=False)
    assert "webhook" not in emulator.get("/v1/predictions").json()["results"][0]
    assert "webhook" not in emulator.get(f"/v1/predictions/{p['id']}").json()
    assert emulator.get("/_emulator/predictions").json()[0]["webhook"]


def test_hundreds_at_once(emulator: Emulator) -> None:
    """400 predictions, each with its webhook: all end, none is mixed up with another."""
    hook = Receiver()
    count = 400

    def create(n: int) -> str:
        answer = emulator.create(
            OFFICIAL,
            input={"prompt": f"{n}"},
            webhook=f"{hook.url}?n={n}",
            webhook_events_filter=["completed"],
        )
        identity: str = answer.json()["id"]
        return identity

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        ids = list(pool.map(create, range(count)))
    hook.wait(count)
    bodies = {body["id"]: body for body in (json.loads(body) for _, body in hook.got)}
    assert bodies.keys() == set(ids)
    for n, one in enumerate(ids):
        assert bodies[one]["status"] == "succeeded"
        assert bodies[one]["webhook"] == f"{hook.url}?n={n}"
        assert bodies[one]["input"] == {"prompt": f"{n}"}
    assert len({body["output"][0] for body in bodies.values()}) == count


# --- faults ---


def test_every_fault_has_its_test(emulator: Emulator) -> None:
    known = emulator.post("/_emulator/faults", json={"fault": "no such fault"})
    assert known.status_code == 422
    assert set(known.json()["detail"].partition(": ")[2].split(", ")) == FAULTS


def test_create_reset(emulator: Emulator) -> None:
    """The client sees no answer, but the prediction exists and runs."""
    emulator.order("create_reset")
    with pytest.raises(httpx.TransportError):
        emulator.create(OFFICIAL, input={"prompt": "lost"}, webhook="http://127.0.0.1:9/lost")
    listed = emulator.get("/v1/predictions").json()["results"][0]
    assert (listed["input"], listed["webhook"]) == (
        {"prompt": "lost"},
        "http://127.0.0.1:9/lost",
    )
    assert emulator.finished(listed["id"])["status"] == "succeeded"


@pytest.mark.parametrize("accepted", [False, True])
def test_create_500(accepted: bool, emulator: Emulator) -> None:
    before = len(emulator.get("/_emulator/predictions").json())
    emulator.order("create_500", accepted=accepted)
    assert emulator.create(OFFICIAL, input={"prompt": "x"}).status_code == 500
    assert len(emulator.get("/_emulator/predictions").json()) == before + accepted


@pytest.mark.parametrize(
    ("fault", "params", "expected"),
    [
        ("create_402", {}, {"status": 402, "title": "Insufficient credit"}),
        ("create_402", {"title": "Billing required"}, {"title": "Billing required"}),
        ("create_422", {}, {"status": 422, "title": "Input validation failed"}),
        ("create_429", {"retry_after": 7}, {"status": 429, "retry_after": 7}),
        ("version_422", {}, {"status": 422, "title": "Invalid version or not permitted"}),
    ],
)
def test_refusals(
    fault: str, params: dict[str, Any], expected: dict[str, Any], emulator: Emulator
) -> None:
    """In Replicate's form, and nothing is created."""
    before = len(emulator.get("/_emulator/predictions").json())
    emulator.order(fault, **params)
    answer = emulator.create(OFFICIAL, input={"prompt": "x"})
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == answer.json() | expected
    assert answer.status_code == answer.json()["status"]
    assert len(emulator.get("/_emulator/predictions").json()) == before


def test_faults_are_counted_and_belong_to_a_model(emulator: Emulator) -> None:
    emulator.order("create_402", times=2, model=TEXT)
    assert emulator.create(OFFICIAL, input={"prompt": "x"}).status_code == 201
    statuses = [emulator.create(TEXT, input={}).status_code for _ in range(3)]
    assert statuses == [402, 402, 201]
    emulator.order("create_402", times=None)
    statuses = [emulator.create(TEXT, input={}).status_code for _ in range(3)]
    assert statuses == [402, 402, 402]
    emulator.delete("/_emulator/faults")
    assert emulator.create(TEXT, input={}).status_code == 201


def test_fail_abort_and_output(emulator: Emulator) -> None:
    emulator.order("fail", error="CUDA out of memory")
    failed = emulator.ran(OFFICIAL, prompt="x")
    assert (failed["status"], failed["error"]) == ("failed", "CUDA out of memory")
    assert failed["output"] is None
    emulator.order("abort")
    aborted = emulator.ran(OFFICIAL, prompt="x")
    assert (aborted["status"], "predict_time" in aborted["metrics"]) == ("aborted", False)
    outputs: list[Any] = [None, "https://evil.example/x.png", {"deep": [1, {"a": "b"}]}, []]
    for output in outputs:
        emulator.order("output", output=output)
        assert emulator.ran(OFFICIAL, prompt="x")["output"] == output


@pytest.mark.parametrize("asked", [True, False])
def test_abort_with_and_without_a_webhook(asked: bool, emulator: Emulator) -> None:
    emulator.settings(webhook_on_aborted=asked)
    emulator.order("abort")
    hook = Receiver()
    p = made(emulator, webhook=hook.url, webhook_events_filter=["completed"])
    emulator.finished(p["id"])
    time.sleep(0.3)
    assert [json.loads(body)["status"] for _, body in hook.got] == ["aborted"] * asked


def test_hang(emulator: Emulator) -> None:
    emulator.settings(minimum_cancel_after=1)
    emulator.order("hang", times=2)
    hook = Receiver()
    p = made(emulator, webhook=hook.url, webhook_events_filter=["completed"])
    deadline = emulator.create(OFFICIAL, {"Cancel-After": "1"}, input={"prompt": "x"}).json()
    time.sleep(0.7)
    assert emulator.get(f"/v1/predictions/{p['id']}").json()["status"] == "processing"
    assert emulator.post(f"/v1/predictions/{p['id']}/cancel").json()["status"] == "canceled"
    assert json.loads(hook.wait()[1])["status"] == "canceled"
    assert emulator.finished(deadline["id"])["status"] == "canceled"


def test_a_version_that_is_rerouted(emulator: Emulator) -> None:
    emulator.settings(reroute_version="7" * 64)
    assert emulator.ran(reference(COMMUNITY), image=PICTURE)["version"] == "7" * 64


@pytest.fixture
def output(emulator: Emulator) -> str:
    url: str = emulator.ran(OFFICIAL, prompt="x")["output"][0]
    return url


def test_file_404(output: str, emulator: Emulator) -> None:
    emulator.order("file_404")
    assert [httpx.get(output).status_code for _ in range(2)] == [404, 200]


def test_file_401(output: str, emulator: Emulator) -> None:
    emulator.order("file_401", times=None)
    assert [httpx.get(output).status_code for _ in range(2)] == [401, 401]
    assert emulator.get(output).status_code == 200


def test_file_redirect(output: str, emulator: Emulator) -> None:
    emulator.order("file_redirect", url="https://evil.example/x")
    answer = httpx.get(output)
    assert (answer.status_code, answer.headers["location"]) == (302, "https://evil.example/x")


def test_file_body(output: str, emulator: Emulator) -> None:
    emulator.order("file_body", body="<script>alert(1)</script>", content_type="text/html")
    answer = httpx.get(output)
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.text == "<script>alert(1)</script>"


def test_file_short(output: str, emulator: Emulator) -> None:
    emulator.order("file_short")
    with httpx.stream("GET", output) as answer, pytest.raises(httpx.TransportError):
        for _ in answer.iter_bytes():
            pass
    announced = int(answer.headers["content-length"])
    assert 0 < answer.num_bytes_downloaded < announced


def test_file_endless(output: str, emulator: Emulator) -> None:
    emulator.order("file_endless")
    with httpx.stream("GET", output) as answer:
        assert "content-length" not in answer.headers
        for _ in answer.iter_bytes():
            if answer.num_bytes_downloaded > 30_000_000:
                break
    assert answer.num_bytes_downloaded > 30_000_000
    assert httpx.get(output).status_code == 200


# --- control ---


def test_what_was_asked_is_kept_without_the_token(emulator: Emulator) -> None:
    emulator.get("/v1/account?x=1", headers={"User-Agent": "mine"})
    seen = emulator.get("/_emulator/requests").json()[-1]
    assert (seen["method"], seen["path"], seen["query"]) == ("GET", "/v1/account", "x=1")
    assert seen["headers"]["user-agent"] == "mine"
    assert "authorization" not in seen["headers"]


def test_settings_that_do_not_exist_are_refused(emulator: Emulator) -> None:
    answer = emulator.post("/_emulator/settings", json={"run_second": 1})
    assert answer.status_code == 422


def test_deployments_of_the_settings(framework: str, renders: Renders) -> None:
    chosen = json.dumps({COMMUNITY.partition("/")[2]: {"deployment": "acme/large"}})
    with emulating(renders(framework=framework), MODEL_SETTINGS=chosen) as emulator:
        emulator.settings(cold_start_seconds=30)
        body = {"input": {"image": PICTURE}}
        p = emulator.post("/v1/deployments/acme/large/predictions", json=body).json()
        done = emulator.finished(p["id"])  # a deployment is warm
        assert (done["status"], done["model"]) == ("succeeded", COMMUNITY)
        assert done["deployment"] == "acme/large"
        unknown = emulator.post("/v1/deployments/acme/small/predictions", json=body)
        assert unknown.status_code == 404
