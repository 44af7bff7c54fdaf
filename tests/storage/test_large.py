"""Two gigabytes through download, upload and back, in little memory."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.rendering import ROOT, clean_env, run
from tests.storage.servers import S3, output_server

SIZE = 2 * 10**9
MOST = 64 * 2**20
BLOCK = bytes(range(256)) * 2**12

pytestmark = pytest.mark.anyio


async def send(writer: asyncio.StreamWriter) -> None:
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n".encode())
    left = SIZE
    while left:
        writer.write(BLOCK[:left])
        left -= len(BLOCK[:left])
        await writer.drain()


@pytest.mark.slow
async def test_two_gigabytes_in_constant_memory(s3: S3) -> None:
    script = Path(__file__).with_name("transfer.py")
    env = clean_env(**s3.env, PYTHONPATH=str(ROOT))
    async with output_server() as server:
        url = server.raw("/large.bin", send)
        done = await asyncio.to_thread(run, sys.executable, script, url, cwd=ROOT, env=env)
    result = json.loads(done.stdout)
    print(result)
    assert result["bytes"] == SIZE
    assert result["same"]
    assert result["grown"] < MOST
