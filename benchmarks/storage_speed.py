"""512 MiB over HTTP into a real S3 server: `store_output` against a plain copy with obstore.

    .venv/bin/python benchmarks/storage_speed.py [MiB] [runs]

Each transfer is a process of its own, so that its peak memory is seen; runs alternate, and the
medians are compared: of the time, and of what the process itself computed, which says more where
the machine has other work. `grown` is how much larger the process was at its peak than before.
"""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "template/{{ python }}/src")]

import httpx  # noqa: E402
import obstore  # noqa: E402
from obstore.store import from_url  # noqa: E402

from inference.outputs import AllowedHosts, store_output  # noqa: E402
from inference.storage import PART_BYTES, Storage  # noqa: E402
from tests.rendering import clean_env  # noqa: E402
from tests.storage.servers import BUCKET, output_server, s3_server  # noqa: E402

BLOCK = bytes(range(256)) * 2**12


def peak() -> int:
    """The most memory that this process has had, in bytes (Linux counts it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def ours(url: str, client: httpx.AsyncClient) -> None:
    storage = Storage.open(f"s3://{BUCKET}/ours")
    allowed = AllowedHosts("{0.scheme}://{0.netloc}".format(urlsplit(url)))
    await store_output(
        "id", url, "file", storage=storage, client=client, allowed=allowed, max_bytes=2**40
    )


async def plain(url: str, client: httpx.AsyncClient) -> None:
    """The same bytes with the same library, without hash, checks and limits."""
    store = from_url(f"s3://{BUCKET}/plain", client_options={"allow_http": True, "timeout": "1h"})
    async with client.stream("GET", url) as reply:
        await obstore.put_async(
            store, "copy", reply.aiter_raw(2**18), chunk_size=PART_BYTES, max_concurrency=2
        )


async def transfer(name: str, url: str) -> None:
    """One transfer, in this process; prints what it took."""
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        before, began, worked = peak(), time.perf_counter(), time.process_time()
        await {"ours": ours, "plain": plain}[name](url, client)
        took, cpu = time.perf_counter() - began, time.process_time() - worked
    print(json.dumps({"seconds": took, "cpu": cpu, "grown": peak() - before, "peak": peak()}))


async def compare(size: int, runs: int) -> None:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        for start in range(0, size, len(BLOCK)):
            writer.write(BLOCK[: size - start])
            await writer.drain()

    found: dict[str, list[dict[str, float]]] = {"ours": [], "plain": []}
    with s3_server() as s3:
        async with output_server() as server:
            url = server.raw("/large.bin", send)
            for _ in range(runs):
                for name, taken in found.items():
                    process = await asyncio.create_subprocess_exec(
                        *(sys.executable, __file__, "--transfer", name, url),
                        env=clean_env(**s3.env),
                        stdout=asyncio.subprocess.PIPE,
                    )
                    output, _ = await process.communicate()
                    assert process.returncode == 0, f"{name} ended with {process.returncode}"
                    taken.append(json.loads(output))
    seconds, cpu = (
        {name: statistics.median(one[key] for one in taken) for name, taken in found.items()}
        for key in ("seconds", "cpu")
    )
    for name, taken in found.items():
        rate = size / 2**20 / seconds[name]
        grown, most = (max(one[key] for one in taken) / 2**20 for key in ("grown", "peak"))
        print(
            f"{name:<6}{rate:7.1f} MiB/s, {cpu[name]:.2f} s of CPU,"
            f" peak {most:.0f} MiB, grown {grown:.0f} MiB"
        )
    print(f"ours against plain: {seconds['plain'] / seconds['ours']:.2f},", end=" ")
    print(f"of CPU: {cpu['plain'] / cpu['ours']:.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--transfer"]:
        asyncio.run(transfer(*sys.argv[2:4]))
    else:
        given = [int(each) for each in sys.argv[1:3]]
        mebibytes, runs = given + [512, 3][len(given) :]
        asyncio.run(compare(mebibytes * 2**20, runs))
