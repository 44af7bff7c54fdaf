"""How each framework's store is opened; a Python project's ``src`` must be importable."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inference.store import Store


def fastapi(url: str) -> Store:
    from app.database import SqlStore
    from app.tables import open_engine

    return SqlStore(open_engine(url))


def django(url: str) -> Store:
    # not imported by name: to the type checker here, app is FastAPI's
    alias = import_module("app.main").set_up(url)
    store: Store = import_module("app.database").DjangoStore(alias)
    return store


def nextjs(url: str) -> Store:
    from tests.store.node_store import NodeStore

    return NodeStore(os.environ["STORE_PROJECT"], url)


ADAPTERS = {"fastapi": fastapi, "django": django, "nextjs": nextjs}


def open_store() -> Store:
    """The store that STORE_FRAMEWORK and DATABASE_URL name, on a database that was migrated."""
    return ADAPTERS[os.environ["STORE_FRAMEWORK"]](os.environ["DATABASE_URL"])
