"""The databases and storages of a chaos run, and a render that runs there."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

import obstore
import psycopg
from obstore.store import S3Store

from tests.chaos.proxies import BytesProxy, Loop
from tests.storage.servers import BUCKET, S3

PART = re.compile(r"#\d+$|\.part$")
"""What is not whole yet: as obstore names it, or as a Next.js project does."""


class Sqlite:
    """A file on this machine."""

    name = "SQLite"

    def __init__(self, folder: Path) -> None:
        self._file = folder / "chaos.db"
        self.url = self.worker_url = f"sqlite:///{self._file}"

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """Somebody else has the lock of the writers."""
        with contextlib.closing(sqlite3.connect(self._file, timeout=30)) as connection:
            connection.isolation_level = None
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")


class Postgresql:
    """A server; workers come to it by a way that can be blocked."""

    name = "PostgreSQL"

    def __init__(self, url: str, loop: Loop, host: str = "127.0.0.1") -> None:
        self.url = url
        self.proxy = postgresql_proxy(url, loop, host)
        self.worker_url = f"postgresql://postgres@{host}:{self.proxy.port}/{url_name(url)}"

    def standing_still(self) -> contextlib.AbstractContextManager[None]:
        return self.proxy.standing_still()

    def end_sessions(self) -> None:
        """As the server does when it is restarted; they are over when this returns."""
        others = "datname = current_database() and pid <> pg_backend_pid()"
        with psycopg.connect(self.url) as connection:
            connection.execute(
                f"select pg_terminate_backend(pid, 10000) from pg_stat_activity where {others}"
            )


def url_name(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


def postgresql_proxy(url: str, loop: Loop, host: str = "127.0.0.1") -> BytesProxy:
    """An address of TCP for a server that listens on a socket in the file system."""
    found = re.search(r"[?&]host=([^&]+)", url)
    assert found is not None, url
    return BytesProxy.to_socket(loop, f"{found[1]}/.s.PGSQL.5432", host)


class LocalStorage:
    """A folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "outputs"
        self.env: Mapping[str, str] = {"STORAGE_URL": str(self._folder)}

    def _files(self) -> list[str]:
        files = [path for path in self._folder.rglob("*") if path.is_file()]
        return sorted(path.relative_to(self._folder).as_posix() for path in files)

    def objects(self) -> list[str]:
        return [name for name in self._files() if not PART.search(name)]

    def leftovers(self) -> list[str]:
        return [name for name in self._files() if PART.search(name)]


class S3Storage:
    """A bucket of a real server."""

    def __init__(self, server: S3, prefix: str) -> None:
        self._server = server
        self.env: Mapping[str, str] = {"STORAGE_URL": f"s3://{BUCKET}/{prefix}", **server.env}
        self._store = S3Store(
            BUCKET,
            prefix=prefix,
            endpoint=server.env["AWS_ENDPOINT"],
            access_key_id=server.env["AWS_ACCESS_KEY_ID"],
            secret_access_key=server.env["AWS_SECRET_ACCESS_KEY"],
            region=server.env["AWS_REGION"],
            client_options={"allow_http": True},
        )

    def objects(self) -> list[str]:
        return sorted(item["path"] for batch in obstore.list(self._store) for item in batch)

    def leftovers(self) -> list[str]:
        return self._server.unfinished()
