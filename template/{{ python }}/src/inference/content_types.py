"""What a file is: by its first bytes, else as announced, else by its name."""

from __future__ import annotations

import mimetypes
import re

import httpx

SNIFFED_BYTES = 12
_CONTENT_TYPE = re.compile(r"[\w.+-]{1,63}/[\w.+-]{1,63}", re.ASCII)
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"\x1aE\xdf\xa3", "video/webm"),
)
_BRANDS = {b"avif": "image/avif", b"M4A ": "audio/mp4", b"qt  ": "video/quicktime"}
_CONTAINERS = {"audio/ogg", "video/webm", "video/mp4"}
"""What may hold sound, or film, or both: there the announced type knows better."""
_EXTENSIONS = {"image/jpeg": "jpg", "image/webp": "webp", "image/avif": "avif", "audio/wav": "wav"}
_EXTENSIONS |= {"audio/flac": "flac", "audio/ogg": "ogg", "audio/mp4": "m4a"}
_TYPES = mimetypes.MimeTypes()  # Python's own, not the machine's: keys are the same everywhere


def content_type_of(announced: str, first: bytes, url: str) -> str:
    """By the first bytes where they are known ones, else as announced, else by the URL's ending."""
    found = _sniffed(first)
    if found in _CONTAINERS and announced.startswith(("audio/", "video/")):
        found = None
    if found is not None:
        return found
    if _CONTENT_TYPE.fullmatch(announced) and not announced.endswith("/octet-stream"):
        return announced
    path = "" if url.startswith("data:") else httpx.URL(url).path
    return _TYPES.guess_type(path)[0] or "application/octet-stream"


def _sniffed(first: bytes) -> str | None:
    for magic, content_type in _MAGIC:
        if first.startswith(magic):
            return content_type
    if first[:4] == b"RIFF":
        return {b"WAVE": "audio/wav", b"WEBP": "image/webp"}.get(first[8:12])
    return _BRANDS.get(first[8:12], "video/mp4") if first[4:8] == b"ftyp" else None


def extension_of(content_type: str) -> str:
    """The ending of its key, without a dot."""
    known = _EXTENSIONS.get(content_type)
    return known or (_TYPES.guess_extension(content_type) or ".bin").removeprefix(".")
