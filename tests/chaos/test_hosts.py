"""Web and workers apart, on several hosts that share a PostgreSQL and an S3 server only."""

from __future__ import annotations

import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.harness import CREATES, LEASE, MODELS, OUTPUT, PROJECTS, Chaos, table
from tests.chaos.hosts import hosts
from tests.chaos.places import Postgresql, S3Storage
from tests.chaos.proxies import BytesProxy, Loop
from tests.rendering import Renders
from tests.storage.servers import s3_server

WORKERS = ["worker-0", "worker-1", "worker-2"]


@pytest.mark.slow
@pytest.mark.parametrize("framework", PROJECTS)
def test_a_host_that_is_cut_off_loses_nothing_and_doubles_nothing(
    framework: str,
    new_database: Callable[[], str],
    renders: Renders,
    tmp_path: Path,
) -> None:
    """In the middle of a download; another goes on, and who comes back finds the row taken."""
    project = renders.copy(tmp_path / "project", framework=framework, replicate_models=MODELS)
    loop = Loop()
    with s3_server() as s3, hosts(WORKERS) as several:
        database = Postgresql(new_database(), loop, several.address)
        bucket = BytesProxy.to_port(loop, s3.port, several.address)
        storage = S3Storage(s3, "hosts")
        storage.env = {**storage.env, "AWS_ENDPOINT": f"http://{several.address}:{bucket.port}"}
        chaos = Chaos(
            project,
            framework,
            database,
            storage,
            workers=len(WORKERS),
            host=several.address,
            on_host=several.command,
        )
        with chaos.up():
            hold = chaos.api.hold("GET", OUTPUT, "half")
            chaos.load(12, 0.2)
            cut = hold.wait()
            if several.namespaces:
                (name,) = [n for n, its in several.addresses.items() if its == cut.client]
                several.link(name, "down")
            else:
                chaos.signal_workers(signal.SIGSTOP)
                chaos.add_worker("worker-3")
            began = time.monotonic()
            chaos.load(12, 0.2)
            chaos.settle(240)
            assert time.monotonic() - began > LEASE / 3, "the row was not the cut host's any more"
            if several.namespaces:
                several.link(name, "up")
            else:
                chaos.signal_workers(signal.SIGCONT)
            hold.go_on()
            time.sleep(5)
            report = chaos.verify()
        creates = Counter(
            request.client for request in chaos.api.requests if CREATES.match(request.path)
        )
    shown = f"{table({f'{framework}, 3 hosts': report})}\ncreates by host: {dict(creates)}"
    print(shown)
    assert report.broken == {}, f"{shown}\n{chaos.log.read_text('utf-8')[-20_000:]}"
    assert report.stored == report.predictions == 24
    assert re.search("lease (lost|not renewed)", chaos.log.read_text("utf-8")), "it noticed"
    if several.namespaces:
        assert set(creates) == set(several.addresses.values()), "every host took part"
