"""Several hosts on one machine: network namespaces with an address each, on one bridge.

Where the rights for that are missing, workers are processes of this host, and a host that is cut
off is one that stands still (SIGSTOP): the lease runs out in the same way.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

NETWORK = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"


@dataclass(frozen=True)
class Hosts:
    """``address`` is where the servers listen; the hosts' own are by the name of their worker."""

    address: str
    addresses: dict[str, str]
    namespaces: bool

    def command(self, name: str) -> list[str]:
        """What a worker's command begins with on its host."""
        if not self.namespaces or name not in self.addresses:
            return []
        return ["ip", "netns", "exec", _namespace(name)]

    def link(self, name: str, state: str) -> None:
        """Cut a host off (``down``), or connect it again (``up``)."""
        _ip("link", "set", _link(name), state)


@contextlib.contextmanager
def hosts(names: list[str]) -> Iterator[Hosts]:
    """One host for each name."""
    if shutil.which("ip") is None or os.geteuid() != 0 or not _allowed():
        yield Hosts("127.0.0.1", {}, namespaces=False)
        return
    bridge, address = f"br{os.getpid()}", f"{NETWORK}.1"
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("addr", "add", f"{address}/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        addresses = {name: f"{NETWORK}.{number}" for number, name in enumerate(names, 10)}
        for name, its in addresses.items():
            inside = ("netns", "exec", _namespace(name), "ip")
            _ip("netns", "add", _namespace(name))
            _ip("link", "add", _link(name), "type", "veth", "peer", "name", "eth0",
                "netns", _namespace(name))  # fmt: skip
            _ip("link", "set", _link(name), "master", bridge, "up")
            _ip(*inside, "addr", "add", f"{its}/24", "dev", "eth0")
            _ip(*inside, "link", "set", "eth0", "up")
            _ip(*inside, "link", "set", "lo", "up")
        yield Hosts(address, addresses, namespaces=True)
    finally:
        for name in names:
            _ip("netns", "delete", _namespace(name), check=False)
        _ip("link", "delete", bridge, check=False)


def _allowed() -> bool:
    try:
        _ip("netns", "add", f"try{os.getpid()}")
        _ip("netns", "delete", f"try{os.getpid()}")
    except subprocess.CalledProcessError:
        return False
    return True


def _namespace(name: str) -> str:
    return f"{name}-{os.getpid()}"


def _link(name: str) -> str:
    return f"v{name[-1]}-{os.getpid()}"


def _ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=True, timeout=30)
