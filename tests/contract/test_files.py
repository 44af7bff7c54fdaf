"""Uploads, and how files are served."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.contract.client import ESRGAN, FLUX, Caller, Emulator
from tests.contract.conftest import NewCaller

pytestmark = pytest.mark.database("sqlite")

PNG = b"\x89PNG\r\n\x1a\n and more"
HTML = "<script>alert(1)</script>"


def test_uploads_are_inputs(caller: Caller, emulator: Emulator) -> None:
    url = caller.uploaded(PNG, "image/png")
    assert caller.get(url).content == PNG
    prediction = caller.run(ESRGAN, image=url)
    assert prediction["storage"] == "stored"
    sent = emulator.of(prediction)[0]["input"]["image"]
    upload = emulator.http.get(sent).json()
    assert upload["checksums"]["sha256"] == hashlib.sha256(PNG).hexdigest()
    assert upload["content_type"] == "image/png"


def test_uploads_are_the_callers_own(caller: Caller, new_caller: NewCaller) -> None:
    url = caller.uploaded(PNG, "image/png")
    other = new_caller()
    assert other.get(url).status_code == 404
    body = {"model": ESRGAN, "input": {"image": url}}
    refused = other.post("/api/predictions", body)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "input.image"


@pytest.mark.parametrize("size", [0, 1, 2_999_999])
def test_uploads_of_any_size(caller: Caller, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    reply = caller.get(caller.uploaded(content, "application/octet-stream"))
    assert reply.content == content
    assert reply.headers["etag"] == f'"{hashlib.sha256(content).hexdigest()}"'


@pytest.mark.parametrize(
    "name",
    [
        "\N{GRINNING FACE}.png",
        "\u6587\u4ef6",
        "at 9.41\N{NARROW NO-BREAK SPACE}AM.png",
        'a";b',
        "\xfc",
    ],
)
def test_a_file_may_have_any_name(caller: Caller, name: str) -> None:
    reply = caller.upload(PNG, "image/png", name)
    assert reply.status_code == 201, reply.text
    assert caller.get(reply.json()["url"]).content == PNG


def test_a_name_that_is_no_text_is_no_fault_of_ours(caller: Caller) -> None:
    name = "name=file; filename*=UTF-8''%zz"
    part = f"--b\r\nContent-Disposition: form-data; {name}\r\n\r\nx\r\n--b--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b", "Origin": caller.url}
    reply = caller.http.post("/api/files", content=part, headers=headers)
    assert reply.status_code in (201, 400, 422), reply.text


def test_uploads_that_are_refused(caller: Caller) -> None:
    origin = {"Origin": caller.url}
    assert caller.upload(b"x" * 3_500_000, "image/png").status_code == 413
    assert caller.upload(b"x" * 6_000_000, "image/png").status_code == 413

    def unannounced() -> Any:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(60):
            yield b"x" * 100_000
        yield b"\r\n--b--\r\n"

    multipart = {"Content-Type": "multipart/form-data; boundary=b"} | origin
    reply = caller.http.post("/api/files", content=unannounced(), headers=multipart)
    assert reply.status_code == 413
    form = {"other": ("a", b"x", "text/plain")}
    assert caller.http.post("/api/files", files=form, headers=origin).status_code == 422
    text = caller.http.post("/api/files", data={"file": "no file"}, headers=origin)
    assert text.status_code == 422
    broken = {"Content-Type": "multipart/form-data"} | origin
    assert caller.http.post("/api/files", content=b"x", headers=broken).status_code == 400
    assert caller.http.post("/api/files", files={"file": b"x"}).status_code == 403


@pytest.mark.parametrize(
    ("content_type", "disposition"),
    [
        ("image/png", "inline"),
        ("audio/wav", "inline"),
        ("video/mp4", "inline"),
        ("text/html", "attachment"),
        ("IMAGE/SVG+XML", "attachment"),
        ("image/svg+xml", "attachment"),
        ("application/xhtml+xml", "attachment"),
        ("application/pdf", "attachment"),
        ("text/plain; charset=utf-8", "attachment"),
    ],
)
def test_files_are_served_safely(caller: Caller, content_type: str, disposition: str) -> None:
    # the client checks the headers that each file has
    reply = caller.get(caller.uploaded(HTML.encode(), content_type))
    assert reply.headers["content-type"].lower() == content_type.lower()
    assert reply.headers["content-disposition"].partition(";")[0] == disposition


@pytest.mark.parametrize("content_type", ["text/html", "image/svg+xml"])
def test_outputs_are_served_safely(caller: Caller, emulator: Emulator, content_type: str) -> None:
    emulator.fault("file_body", body=HTML, content_type=content_type)
    prediction = caller.run(FLUX, prompt="x")
    reply = caller.get(prediction["output"][0])
    assert reply.text == HTML
    assert reply.headers["content-type"].partition(";")[0] == content_type
    assert reply.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(
    ("given", "content", "named"),
    [
        ("bytes=2-4", b"234", "bytes 2-4/10"),
        ("bytes=0-0", b"0", "bytes 0-0/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=7-99", b"789", "bytes 7-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=-30", b"0123456789", "bytes 0-9/10"),
    ],
)
def test_ranges(caller: Caller, given: str, content: bytes, named: str) -> None:
    url = caller.uploaded(b"0123456789", "audio/wav")
    part = caller.get(url, headers={"Range": given})
    assert (part.status_code, part.content) == (206, content)
    assert part.headers["content-range"] == named
    assert int(part.headers["content-length"]) == len(content)


@pytest.mark.parametrize(
    "given",
    [
        "bytes=10-",
        "bytes=5-2",
        "bytes=-0",
        "bytes=-",
        "bytes=a-b",
        "bytes=0-1,3-4",
        "lines=0-1",
        f"bytes={'9' * 5000}-",
    ],
)
def test_ranges_that_make_no_sense(caller: Caller, given: str) -> None:
    url = caller.uploaded(b"0123456789", "audio/wav")
    whole = caller.get(url, headers={"Range": given})
    assert (whole.status_code, whole.content) == (200, b"0123456789")
    assert "content-range" not in whole.headers


def test_files_that_the_caller_has(caller: Caller) -> None:
    url = caller.uploaded(b"0123456789", "audio/wav")
    tag = caller.get(url).headers["etag"]
    for known in (tag, f'"other", {tag}', f"W/{tag}"):
        reply = caller.get(url, headers={"If-None-Match": known})
        assert (reply.status_code, reply.content) == (304, b"")
    assert caller.get(url, headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("index", ["1", "-1", "x", "0x", "1.0", "9" * 30, "9" * 5000, "%00"])
def test_files_that_are_not_there(caller: Caller, index: str) -> None:
    output = caller.run(FLUX, prompt="x")["output"][0]
    upload = caller.uploaded(b"x", "text/plain")
    for url in (output, upload):
        assert caller.get(url.rpartition("/")[0] + f"/{index}").status_code == 404
