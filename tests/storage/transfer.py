"""Fetch an output into the storage, and read it back: a process of its own, to see its memory.

    transfer.py URL

Prints JSON: ``bytes``, ``sha256``, ``same`` (it was read back as it was stored), ``put_seconds``,
and ``grown`` (by how many bytes the process was larger at its peak than before).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import resource
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "template/{{ python }}/src"))

from inference.outputs import AllowedHosts, store_output
from inference.storage import Storage
from tests.storage.servers import BUCKET


def peak() -> int:
    """The most memory that this process has had, in bytes (Linux counts it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def transfer(url: str) -> dict[str, object]:
    storage = Storage.open(f"s3://{BUCKET}/large")
    allowed = AllowedHosts("{0.scheme}://{0.netloc}".format(urlsplit(url)))
    await storage.check()  # all is loaded and connected before the memory is first measured
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        before = peak()
        started = time.monotonic()
        files, _ = await store_output(
            "id", url, "file", storage=storage, client=client, allowed=allowed, max_bytes=2**40
        )
        seconds = time.monotonic() - started
        digest = hashlib.sha256()
        async for chunk in storage.get(files[0].key):
            digest.update(chunk)
    return {
        "bytes": files[0].size,
        "sha256": files[0].sha256,
        "same": digest.hexdigest() == files[0].sha256,
        "put_seconds": seconds,
        "grown": peak() - before,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(transfer(sys.argv[1]))))
