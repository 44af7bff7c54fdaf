"""The store of a Next.js project, behind the same port as the others: a process of Node's."""

from __future__ import annotations

import atexit
import itertools
import json
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from inference.prediction import Row, StoredFile
from inference.store import Event, KeyReused, LimitReached, Limits, RunLately, Upload
from tests.node import NODE

DRIVER = Path(__file__).with_name("store_driver.ts")


def _row(found: Any) -> Row | None:
    return None if found is None else Row(**found)


def _limits(limits: Limits) -> dict[str, float]:
    return {
        "callerPerMinute": limits.caller_per_minute,
        "addressPerMinute": limits.address_per_minute,
        "dailyPredictions": limits.daily_predictions,
        "dailySeconds": limits.daily_seconds,
    }


class NodeStore:
    """``inference.store.Store``; any number of threads may call."""

    def __init__(self, project: str, url: str) -> None:
        command = [str(NODE), "--conditions=react-server", str(DRIVER), project, url]
        process = subprocess.Popen(
            command, cwd=project, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )
        atexit.register(process.kill)
        assert process.stdin is not None
        assert process.stdout is not None
        self._input = process.stdin
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._waiting: dict[int, Future[Any]] = {}
        threading.Thread(target=self._listen, args=[process.stdout], daemon=True).start()

    def _listen(self, output: IO[str]) -> None:
        for line in output:
            said = json.loads(line)
            waiting = self._waiting.pop(said["id"])
            match said.get("error"):
                case None:
                    waiting.set_result(said["value"])
                case "KeyReused":
                    waiting.set_exception(KeyReused())
                case "RunLately":
                    waiting.set_exception(RunLately())
                case "LimitReached":
                    waiting.set_exception(LimitReached(said["words"], said["after"]))
                case other:
                    waiting.set_exception(AssertionError(f"{other}: {said['words']}"))
        for waiting in self._waiting.values():
            waiting.set_exception(AssertionError("the process has ended"))

    def _call(self, part: str, name: str, *given: Any) -> Any:
        answer: Future[Any] = Future()
        with self._lock:
            number = next(self._numbers)
            self._waiting[number] = answer
            call = {"id": number, "part": part, "name": name, "given": given}
            self._input.write(json.dumps(call, default=asdict) + "\n")
            self._input.flush()
        return answer.result(60)

    def add(self, row: Row, limits: Limits, unless_since: float | None = None) -> Row:
        return Row(**self._call("store", "add", row, _limits(limits), unless_since))

    def get(self, row_id: str) -> Row | None:
        return _row(self._call("store", "get", row_id))

    def page(self, owner: str, before: tuple[float, str] | None, limit: int) -> list[Row]:
        start = before and {"createdAt": before[0], "id": before[1]}
        return [Row(**row) for row in self._call("store", "page", owner, start, limit)]

    def request_cancel(self, row_id: str, now: float) -> Row | None:
        return _row(self._call("store", "requestCancel", row_id, now))

    def delete(self, row_id: str, now: float) -> Row | None:
        return _row(self._call("store", "delete", row_id, now))

    def receive(self, events: Sequence[Event]) -> int:
        kept = [self._call("store", "receive", event, event.received_at) for event in events]
        return sum(kept)

    def claim(self, now: float, lease: float) -> Row | None:
        return _row(self._call("queue", "claim", now, lease))

    def renew(self, row: Row, until: float) -> bool:
        return bool(self._call("queue", "renew", row, until))

    def mark_sent(self, row: Row, now: float) -> bool:
        return bool(self._call("queue", "markSent", row, now))

    def events(self, row: Row) -> Sequence[Event]:
        return [Event(**event) for event in self._call("queue", "events", row)]

    def save(self, old: Row, new: Row, handled: Sequence[Event] = ()) -> bool:
        return bool(self._call("queue", "save", old, new, list(handled)))

    def note(self, old: Row, new: Row) -> bool:
        return bool(self._call("queue", "note", old, new))

    def add_upload(self, upload: Upload, limits: Limits) -> None:
        self._call("uploads", "add", upload, _limits(limits))

    def keep_upload(self, upload: Upload) -> None:
        self._call("uploads", "keep", upload.id, upload.file)

    def upload(self, upload_id: str) -> Upload | None:
        found = self._call("uploads", "get", upload_id)
        if found is None:
            return None
        file = found.pop("file")
        return Upload(**found, file=file and StoredFile(**file))

    def old_uploads(self, before: float) -> list[Upload]:
        found = [self.upload(each["id"]) for each in self._call("uploads", "old", before)]
        return [upload for upload in found if upload is not None]

    def forget_upload(self, upload_id: str) -> None:
        self._call("uploads", "forget", upload_id)

    def forget_events(self, before: float) -> None:
        self._call("uploads", "forgetEvents", before)

    def versions_ran(self, since: float) -> list[tuple[str, str]]:
        return [(ran["model"], ran["version"]) for ran in self._call("store", "versionsRan", since)]

    def overdue(self, now: float) -> float:
        return float(self._call("store", "overdue", now))

    def usage(self, since: float) -> list[Row]:
        return [Row(**row) for row in self._call("store", "usage", since)]
