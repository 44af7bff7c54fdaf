"""Whether the service can do its work, and whether what runs is what is pinned."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from .models import REGISTRY
from .service import Service
from .storage import StorageError
from .store import Store

WORKER_LATE = 60.0
"""Seconds after which a due row says that no worker runs."""


def readiness(service: Service) -> dict[str, Any]:
    """What ``GET /readyz`` says; ``status`` is ready or not ready. Not for an event loop."""
    checks = {"database": "ok", "storage": "ok", "worker": "ok"}
    drifted: list[dict[str, str]] = []
    try:
        late = service.store.overdue(time.time())
        if late > WORKER_LATE:
            checks["worker"] = f"a prediction has waited {late:.0f} s for a worker"
        drifted = drift(service.store)
    except Exception as error:
        checks["database"] = type(error).__name__
    try:
        asyncio.run(service.storage.check())
    except StorageError as error:
        checks["storage"] = str(error)
    ready = all(check == "ok" for check in checks.values())
    return {"status": "ready" if ready else "not ready", "checks": checks, "drift": drifted}


def drift(store: Store) -> list[dict[str, str]]:
    """Community models of which another version ran than the pinned one, this week."""
    found = []
    for key, ran in store.versions_ran(time.time() - 7 * 86_400):
        model = REGISTRY.get(key)
        if model is not None and model.version is not None and ran != model.version:
            found.append({"model": key, "pinned": model.version, "ran": ran})
    return found
