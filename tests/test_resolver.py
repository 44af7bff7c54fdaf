"""The resolver: the real SDK against a real server, in-process and through `copier`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from copier.errors import UserMessageError
from hypothesis import given
from hypothesis import strategies as st

from tests.model_api import (
    TOKEN,
    Fault,
    ModelApi,
    hang,
    load_extension,
    record,
    records,
    reply,
    reset,
    serving,
    status,
)
from tests.rendering import ROOT, answers_of, clean_env, copier_command, run, template

FLUX, ESRGAN = "black-forest-labs/flux-schnell", "nightmareai/real-esrgan"
HASH = records()[ESRGAN]["latest_version"]["id"]


pins = load_extension("replicate_pins")


@pytest.fixture
def server() -> Iterator[ModelApi]:
    with serving() as api:
        yield api


@pytest.fixture
def api(server: ModelApi, monkeypatch: pytest.MonkeyPatch) -> ModelApi:
    """The server, for the resolver in this process, which is told not to be patient."""
    monkeypatch.setenv("REPLICATE_API_TOKEN", TOKEN)
    monkeypatch.setenv("REPLICATE_BASE_URL", server.url)
    original = pins.load_api

    def hasty() -> ModuleType:
        module: ModuleType = original()
        vars(module).update(TIMEOUT=0.4, PATIENCE=1.0, BACKOFF=0.02)
        return module

    monkeypatch.setattr(pins, "load_api", hasty)
    return server


def resolve(*extra: str, known: Any = None, as_of: str = "initial") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(pins.resolve([], list(extra), as_of, known or {}))
    return found


# What it makes of an answer


def test_every_recorded_model_gives_its_pin_of_the_catalogue(api: ModelApi) -> None:
    found = resolve(*records())
    for name, pin in pins.catalogue().items():
        expected = {key: value for key, value in pin.items() if key != "makes"}
        assert found[name] | {"source": "catalogue", "resolved": pin["resolved"]} == expected
        assert found[name]["source"] == "api"
    assert sorted(api.asked) == sorted(records())  # one call each
    assert list(found) == sorted(found)


def field(schema: dict[str, Any], **schemas: Any) -> dict[str, Any]:
    """The pinned field of one input with this schema."""
    model = record("a/b", {"x": schema}, schemas=schemas)
    pin = pins.load_api().make_pin(model, model["latest_version"], "2026-01-31")
    (found,) = pin["input"]
    assert found.pop("name") == "x"
    return dict(found)


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string", "format": "uri"}, {"type": "file"}),
        ({"type": "string", "format": "password"}, {"type": "string"}),
        ({"type": "integer", "minimum": 0.0, "maximum": 2**64}, {"minimum": 0, "maximum": 2**64}),
        ({"type": "integer", "default": 3.0}, {"default": 3}),
        ({"type": "integer", "default": "3"}, {"type": "integer"}),
        ({"type": "integer", "default": True}, {"type": "integer"}),
        ({"type": "number", "maximum": float("inf")}, {"type": "number"}),
        ({"type": "number", "default": 1e-05}, {"default": 1e-05}),
        ({"type": "boolean", "default": "true"}, {"type": "boolean"}),
        ({"type": "string", "default": None}, {"type": "string"}),
        ({"enum": ["a", "b"], "default": "c"}, {"type": "string", "enum": ["a", "b"]}),
        ({"enum": [1, 2], "default": 2}, {"type": "integer", "enum": [1, 2], "default": 2}),
        ({"enum": [0.5, 1]}, {"type": "number", "enum": [0.5, 1]}),
        ({"allOf": [{"$ref": "#/components/schemas/E"}], "default": "b"}, {"enum": ["a", "b"]}),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, {"type": "integer"}),
        ({"type": ["string", "null"]}, {"type": "string"}),
        ({"type": ["string", "integer"]}, {"type": "object"}),
        ({}, {"type": "object"}),
        ({"$ref": "#/components/schemas/Loop"}, {"type": "object"}),
        (
            {"type": "array", "items": {"type": "string", "format": "uri"}, "default": []},
            {"type": "array", "items": "file", "default": []},
        ),
    ],
)
def test_a_field_is_pinned(schema: dict[str, Any], expected: dict[str, Any]) -> None:
    found = field(
        schema,
        E={"type": "string", "enum": ["a", "b"]},
        Loop={"allOf": [{"$ref": "#/components/schemas/Loop"}]},
    )
    assert {key: found[key] for key in expected} == expected
    assert "default" in expected or "default" not in found or schema.get("allOf")
    assert type(found.get("default")) in (type(expected.get("default")), str)


URI = {"type": "string", "format": "uri"}


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        (URI, "file"),
        ({"anyOf": [URI, {"type": "null"}]}, "file"),
        ({"type": "array", "items": URI}, "files"),
        ({"type": "array", "items": URI, "x-cog-array-type": "iterator"}, "files"),
        ({"type": "string"}, "text"),
        (
            {"type": "array", "items": {"type": "string"}, "x-cog-array-type": "iterator"},
            "text-stream",
        ),
        ({"type": "array", "items": {"type": "string"}}, "json"),
        ({"type": "object", "properties": {"a": URI}}, "json"),
        ({"type": "number"}, "json"),
        ({"$ref": "#/components/schemas/Nowhere"}, "json"),
        ({}, "json"),
    ],
)
def test_an_output_is_pinned(schema: dict[str, Any], kind: str) -> None:
    model = record("a/b", output=schema)
    assert pins.load_api().make_pin(model, model["latest_version"], "")["output"] == kind


def test_inputs_keep_the_models_order_and_a_default_makes_them_optional() -> None:
    parts = {
        "late": {"type": "string"},
        "b": {"type": "string", "x-order": 1},
        "a": {"type": "string", "x-order": 0, "default": ""},
    }
    model = record("a/b", parts, required=("a", "b"))
    found = pins.load_api().make_pin(model, model["latest_version"], "")["input"]
    assert [part["name"] for part in found] == ["a", "b", "late"]
    assert [part.get("required", False) for part in found] == [False, True, False]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(json_values)
def test_what_is_kept_reads_back_as_json_and_as_yaml(value: Any) -> None:
    text = pins.to_json(value)
    assert "\n" not in text
    assert json.loads(text) == value
    assert yaml.safe_load(f"a: {{\n  b: {text}\n}}")["a"]["b"] == value


def test_halves_of_surrogate_pairs_are_replaced() -> None:
    assert json.loads(pins.to_json("a\ud800b😀")) == "a\ufffdb😀"


# Which version


def test_a_version_is_verified(api: ModelApi) -> None:
    found = resolve(f"{ESRGAN}:{HASH}")
    assert found[ESRGAN]["version"] == HASH
    assert api.asked == [ESRGAN, f"{ESRGAN}/versions/{HASH}"]


def test_an_official_model_is_pinned_without_a_version(api: ModelApi) -> None:
    assert resolve(FLUX)[FLUX]["version"] is None


# What goes wrong: one line, with the model and the way out


def refusal(*extra: str) -> str:
    with pytest.raises(UserMessageError) as caught:
        resolve(*extra)
    (line,) = str(caught.value).splitlines()
    assert TOKEN not in line
    return line


FAULTS: dict[str, tuple[list[Fault], str, int]] = {
    "401": ([status(401)], "token", 1),
    "402": ([status(402, {"title": "Billing required", "detail": "Add a card"})], "billing", 1),
    "404": ([status(404)], "knows no model", 1),
    "422": ([status(422, {"detail": f"bad\n{TOKEN}"})], "422: bad …", 1),
    "429 for long": ([status(429, {"retry_after": 30})], "throttled|429", 1),
    "429 for ever": ([status(429, {"retry_after": 0.01})] * 9, "429", 4),
    "500 for ever": ([status(500)] * 9, "500", 4),
    "resets": ([reset] * 9, "the connection failed", 4),
    "time-outs": ([hang(2)] * 9, "no answer within", 4),
    "not JSON": ([reply(b"<html>")], "not JSON", 1),
    "not an object": ([reply([1])], "not an object", 1),
    "no version": ([reply({"latest_version": None})], "no published version", 1),
    "no id": ([reply({"latest_version": {"openapi_schema": {}}})], "lacks the id", 1),
    "no schema": ([reply({"latest_version": {"id": "5" * 64}})], "lacks the schema", 1),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_is_one_line(fault: str, api: ModelApi) -> None:
    planted, said, calls = FAULTS[fault]
    api.faults[ESRGAN] = list(planted)
    line = refusal(ESRGAN)
    assert ESRGAN in line
    assert any(word in line for word in said.split("|"))
    assert len(api.asked) == calls


@pytest.mark.parametrize(
    "faults",
    [
        [status(503), status(500)],
        [reset, reset, reset],
        [status(429, {"retry_after": 0.2})],
        [status(429, Retry_After="0.2")],
        [hang(2), status(502)],
    ],
    ids=["5xx", "resets", "429", "429 by header", "time-out"],
)
def test_what_passes_is_waited_for(faults: list[Fault], api: ModelApi) -> None:
    api.faults[ESRGAN] = list(faults)
    assert resolve(ESRGAN)[ESRGAN]["version"] == HASH
    assert len(api.asked) == len(faults) + 1


def test_a_throttled_call_waits_as_long_as_told(api: ModelApi) -> None:
    api.faults[ESRGAN] = [status(429, {"retry_after": 0.7})]
    started = time.monotonic()
    resolve(ESRGAN)
    assert time.monotonic() - started >= 0.7


def test_an_unknown_model_names_its_neighbours(api: ModelApi) -> None:
    assert FLUX in refusal("black-forest-labs/flux-shnell")


def test_an_unknown_version(api: ModelApi) -> None:
    line = refusal(f"{ESRGAN}:{'0' * 64}")
    assert ESRGAN in line
    assert "leave it out" in line


@pytest.mark.parametrize("token", [TOKEN, ""])
def test_a_version_of_an_official_model(
    token: str, api: ModelApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLICATE_API_TOKEN", token)
    assert f"write {FLUX}, without the hash" in refusal(f"{FLUX}:{HASH}")


def test_one_failure_of_many_stops_the_others(api: ModelApi) -> None:
    api.faults[ESRGAN] = [status(401)]
    api.faults["openai/whisper"] = [status(500)] * 9
    started = time.monotonic()
    assert ESRGAN in refusal(ESRGAN, "openai/whisper", FLUX)
    assert time.monotonic() - started < 5


def test_without_a_token_the_catalogue_is_used(
    api: ModelApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REPLICATE_API_TOKEN")
    found = resolve(FLUX, f"{ESRGAN}:{HASH}")
    assert {pin["source"] for pin in found.values()} == {"catalogue"}
    assert "someone/something is not in the template's catalogue" in refusal("someone/something")
    assert "another version" in refusal(f"{ESRGAN}:{'0' * 64}")
    assert api.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "http://api.replicate.com/v1",
        "ftp://127.0.0.1/v1",
        "https://user:secret@api.replicate.com/v1",
        "http://127.0.0.1.evil.example/v1",
        "api.replicate.com",
    ],
)
def test_the_token_goes_to_https_or_to_this_machine_only(
    url: str, api: ModelApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLICATE_BASE_URL", url)
    assert "REPLICATE_BASE_URL must start with https://" in refusal(ESRGAN)


@pytest.mark.parametrize("token", ["r8_a b", "r8_ä", "r8_a\x01"])
def test_a_mangled_token(token: str, api: ModelApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLICATE_API_TOKEN", token)
    line = refusal(ESRGAN)
    assert "REPLICATE_API_TOKEN holds a character" in line
    assert token not in line
    assert api.asked == []


def test_models_are_asked_about_at_once(api: ModelApi) -> None:
    api.latency = 0.3
    resolve(FLUX)  # the SDK is imported
    started = time.monotonic()
    resolve(*records())
    assert time.monotonic() - started < 4 * 0.3


# Through the installed command, from another directory


def copy(destination: Path, env: dict[str, str], *options: str) -> tuple[int, str, str]:
    """Render as people do; exit code, output, errors."""
    arguments = ("--trust", "--defaults", "--quiet", "--vcs-ref=HEAD", *options)
    done = copier_command(
        "copy", *arguments, template(), destination, cwd=destination.parent, env=env, check=False
    )
    assert TOKEN not in done.stdout + done.stderr
    return done.returncode, done.stdout, done.stderr


def test_copy_asks_and_tells(server: ModelApi, tmp_path: Path) -> None:
    server.models["someone/new-model"] = record("someone/new-model")
    options = ("--trust", "--defaults", "--vcs-ref=HEAD")
    extra = "--data=replicate_extra_models=[someone/new-model]"
    done = copier_command(
        "copy", *options, extra, template(), "made", cwd=tmp_path, env=server.env()
    )
    assert len(server.asked) == 4
    assert "about 4 models … done in " in done.stderr
    (row,) = [line.split() for line in done.stderr.splitlines() if "someone/new-model " in line]
    assert row == ["someone/new-model", "community", "555555555555", "file", "0.66", "webhook"]
    assert "without asking Replicate" not in done.stderr
    kept = answers_of(tmp_path / "made")["replicate_pins"]
    assert kept["someone/new-model"]["version"] == "5" * 64
    for path in (tmp_path / "made").rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes()


def test_copy_tells_that_it_did_not_ask(tmp_path: Path) -> None:
    options = ("--trust", "--defaults", "--vcs-ref=HEAD")
    done = copier_command("copy", *options, template(), "made", cwd=tmp_path)
    recorded = pins.catalogue()[FLUX]["resolved"]
    assert f"3 of 3 as recorded in the template's catalogue on {recorded}" in done.stderr
    assert "Asking" not in done.stderr


@pytest.mark.parametrize(
    ("extra", "faults", "said"),
    [
        ("[someone/nothing]", [], "knows no model someone/nothing (404)"),
        ("[someone/broken]", [status(402)], "someone/broken"),
        ("[someone/broken]", [reply(b"<html>")], "someone/broken"),
        ("[someone/broken]", [reset] * 9, "someone/broken"),
        (f"[openai/whisper:{'0' * 64}]", [], "openai/whisper has no version"),
    ],
)
def test_a_failed_copy_writes_nothing(
    extra: str, faults: list[Fault], said: str, server: ModelApi, tmp_path: Path
) -> None:
    server.faults["someone/broken"] = list(faults)
    data = f"--data=replicate_extra_models={extra}"
    code, _, errors = copy(tmp_path / "made", server.env(), data)
    assert code == 1
    progress, line = errors.strip().splitlines()
    assert progress.endswith("failed")
    assert said in line
    assert not (tmp_path / "made").exists()


def test_a_wrong_token(server: ModelApi, tmp_path: Path) -> None:
    code, _, errors = copy(tmp_path / "made", server.env(token="r8_wrong"))
    assert code == 1
    assert "refused the token" in errors
    assert "or unset REPLICATE_API_TOKEN to use the catalogue's pin" in errors
    assert "r8_wrong" not in errors
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("source", ["raise ImportError", "class Client: pass"], ids=["none", "1.x"])
def test_a_missing_or_old_sdk_names_the_command(
    source: str, server: ModelApi, tmp_path: Path
) -> None:
    (tmp_path / "path").mkdir()
    (tmp_path / "path/replicate.py").write_text(source, "utf-8")
    env = server.env() | {"PYTHONPATH": str(tmp_path / "path")}
    code, _, errors = copy(tmp_path / "made", env)
    assert code == 1
    assert "pip install 'replicate>=2.0.0b4'" in errors
    assert "Traceback" not in errors
    # Without a token it is not even looked for.
    code, _, errors = copy(tmp_path / "made", clean_env(PYTHONPATH=str(tmp_path / "path")))
    assert (code, errors) == (0, "")


def test_a_missing_extension_package_names_it(tmp_path: Path) -> None:
    (tmp_path / "path").mkdir()
    missing = "raise ModuleNotFoundError(\"No module named 'copier_template_extensions'\")"
    (tmp_path / "path/copier_template_extensions.py").write_text(missing, "utf-8")
    code, _, errors = copy(tmp_path / "made", clean_env(PYTHONPATH=str(tmp_path / "path")))
    assert code == 1
    assert "copier_template_extensions" in errors
    assert "Traceback" not in errors


def test_the_sdk_is_imported_only_for_a_call(tmp_path: Path, server: ModelApi) -> None:
    env = clean_env(PYTHONPROFILEIMPORTTIME="1")
    _, _, errors = copy(tmp_path / "without", env)
    assert "| copier" in errors
    assert "replicate._client" not in errors
    _, _, errors = copy(tmp_path / "with", env | server.env())
    assert "replicate._client" in errors


# The catalogue


def test_the_catalogue_is_refreshed_through_the_api(server: ModelApi, tmp_path: Path) -> None:
    for part in ("extensions", "catalogue"):
        run("cp", "-r", ROOT / part, tmp_path, cwd=tmp_path)
    path = tmp_path / "catalogue/models.json"
    before = json.loads(path.read_text("utf-8"))
    server.models[ESRGAN]["latest_version"]["id"] = "6" * 64
    command = (sys.executable, tmp_path / "catalogue/refresh.py")
    done = run(*command, cwd=tmp_path, env=server.env())
    after = json.loads(path.read_text("utf-8"))
    assert f"{ESRGAN}: changed" in done.stdout
    assert done.stdout.count("as before") == len(before) - 1
    assert after.keys() == before.keys()
    assert after[ESRGAN]["version"] == "6" * 64
    assert after[ESRGAN]["makes"] == before[ESRGAN]["makes"]
    assert after[ESRGAN]["resolved"] > before[ESRGAN]["resolved"]
    assert {pin["source"] for pin in after.values()} == {"catalogue"}

    server.models.clear()
    failed = run(*command, cwd=tmp_path, env=server.env(), check=False)
    assert failed.returncode == 1
    assert "404" in failed.stderr
    assert json.loads(path.read_text("utf-8")) == after
    assert "Set REPLICATE_API_TOKEN" in run(*command, cwd=tmp_path, check=False).stderr


def test_the_catalogue_is_one_line_per_model() -> None:
    assert pins.CATALOGUE.read_text("utf-8") == pins.catalogue_text(pins.catalogue())
    assert len(pins.catalogue()) >= 14
