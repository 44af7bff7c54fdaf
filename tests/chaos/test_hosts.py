"""Web and workers apart, on several hosts that share a PostgreSQL and an S3 server only."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.harness import CREATES, LEASE, OUTPUT, PROJECTS, Chaos, table
from tests.chaos.hosts import hosts
from tests.chaos.places import Postgresql, S3Storage
from tests.chaos.proxies import BytesProxy, Loop
from tests.contract.conftest import MODELS
from tests.rendering import Renders
from tests.storage.servers import s3_server

WORKERS = ["worker-0", "worker-1", "worker-2"]
CLAIM = r"""(?i)\bupdate "?predictions\b"""


def creates(chaos: Chaos) -> Counter[str]:
    """How many creates came from each address."""
    return Counter(each.client for each in chaos.api.requests if CREATES.match(each.path))


@pytest.mark.slow
@pytest.mark.parametrize("framework", PROJECTS)
def test_a_host_that_is_cut_off_loses_nothing_and_doubles_nothing(
    framework: str,
    new_database: Callable[[], str],
    renders: Renders,
    tmp_path: Path,
) -> None:
    """In the middle of a download; another goes on, and who comes back finds the row taken.

    Meanwhile a connection to the database stands still with a row locked, and before that all
    connections have broken once: no process ends over it.
    """
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
            chaos.load(4, 0.2)
            database.end_sessions()
            database.proxy.stick_after(CLAIM)
            hold = chaos.api.hold("GET", OUTPUT, "half")
            chaos.load(8, 0.2)
            cut = hold.wait()
            assert database.proxy.stuck.wait(30), "no claim after the sessions had ended"
            if several.namespaces:
                (name,) = [n for n, its in several.addresses.items() if its == cut.client]
                several.link(name, "down")
            else:
                chaos.signal_workers(signal.SIGSTOP)
                chaos.add_worker("worker-3")
            began = time.monotonic()
            chaos.load(12, 0.2)
            assert chaos.ended() == []
            chaos.settle(240)
            assert time.monotonic() - began > LEASE / 3, "the row was not the cut host's any more"
            if several.namespaces:
                several.link(name, "up")
            else:
                chaos.signal_workers(signal.SIGCONT)
            hold.go_on()
            before = creates(chaos)
            chaos.load(4, 0.5)
            end = time.monotonic() + 60
            while several.namespaces and creates(chaos)[cut.client] == before[cut.client]:
                assert time.monotonic() < end, "who has come back works no more"
                chaos.load(1, 0.5)
            chaos.settle(60)
            report = chaos.verify()
    hosts_of = creates(chaos)
    shown = f"{table({f'{framework}, 3 hosts': report})}\ncreates by host: {dict(hosts_of)}"
    print(shown)
    assert report.broken == {}, f"{shown}\n{chaos.log.read_text('utf-8')[-20_000:]}"
    assert report.stored == report.predictions
    if several.namespaces:
        assert set(hosts_of) == set(several.addresses.values()), "every host took part"
