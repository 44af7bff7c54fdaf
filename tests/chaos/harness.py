"""A project under SIGKILL: its processes, the steps at which they die, and what is left at the end.

It knows the HTTP contract, the emulator's control paths, and the commands of ``PROJECTS``; nothing
of the framework. A database is something that can stand still, a storage something that lists keys.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import httpx

from tests.chaos.proxies import HttpProxy, Loop, Request
from tests.node import NODE, built, is_node
from tests.rendering import free_port, project_env

PYTHON = sys.executable
CREATES = re.compile(r"^/v1/(deployments/[^/]+/[^/]+/|models/[^/]+/[^/]+/)?predictions$")
WEBHOOK = r"^/api/webhooks/replicate"
OUTPUT = r"^/_files/"
JSON = {"Content-Type": "application/json"}
CANCEL_AFTER = 10
MARGIN = 60
"""Seconds for which a lost create is looked for after its Cancel-After."""
LEASE = 30
"""Seconds after which a dead worker's row is another's; renewed at every third of them."""


@dataclass(frozen=True)
class Commands:
    """How the processes of a project are started; ``{port}`` is filled in."""

    migrate: Sequence[str]
    web: Sequence[str]
    worker: Sequence[str]
    emulator: Sequence[str]


PYTHON_PROJECT = Commands(
    migrate=[PYTHON, "-m", "app", "migrate"],
    web=[PYTHON, "-m", "app", "web", "--port", "{port}"],
    worker=[PYTHON, "-m", "app", "worker"],
    emulator=[PYTHON, "dev/emulator.py", "--port", "{port}"],
)
NODE_PROJECT = Commands(
    migrate=[str(NODE), "--conditions=react-server", "src/migrate.ts"],
    web=[str(NODE), "node_modules/next/dist/bin/next", "start", "-H", "127.0.0.1", "-p", "{port}"],
    worker=[str(NODE), "--conditions=react-server", "src/worker.ts"],
    emulator=[str(NODE), "dev/emulator.ts", "--port", "{port}"],
)
PROJECTS: Mapping[str, Commands] = {
    "fastapi": PYTHON_PROJECT,
    "django": PYTHON_PROJECT,
    "nextjs": NODE_PROJECT,
}


HURRIED = {"LEASE": 9, "ADOPTION_MARGIN": 10, "ASK_EVERY_WITH_WEBHOOK": 10}
"""Seconds in a short run; so the same happens, sooner."""


def hurried(project: Path) -> Path:
    """The project with these waits in place of its own, which take minutes of a run."""
    found = Counter[str]()
    for source in (*project.glob("src/inference/*.py"), *project.glob("src/lib/*.ts")):
        text = source.read_text("utf-8")
        for name, seconds in HURRIED.items():
            text, times = re.subn(
                rf"(?m)^((?:export )?(?:const )?{name}) = [\d.]+", rf"\1 = {seconds}", text
            )
            found[name] += times
        source.write_text(text, "utf-8")
    assert found == dict.fromkeys(HURRIED, 1), found
    return project


class Database(Protocol):
    """What a chaos run needs of a database."""

    name: str
    url: str
    worker_url: str
    """What workers are told, where it is not ``url``."""

    def standing_still(self) -> contextlib.AbstractContextManager[None]:
        """No worker can write meanwhile."""


class Storage(Protocol):
    """What a chaos run needs of a storage."""

    env: Mapping[str, str]

    def objects(self) -> list[str]:
        """Every object, without the prefix."""

    def leftovers(self) -> list[str]:
        """What uploads that were killed have left."""


@dataclass
class Started:
    """A prediction that the service has promised to somebody."""

    id: str
    caller: int
    model: str
    stopped: Literal["", "canceled", "deleted"] = ""
    """What its caller did about it while it ran."""


@dataclass
class Report:
    """What a run has shown; the first block is what must be zero."""

    lost: list[str] = field(default_factory=list)
    stored_twice: list[str] = field(default_factory=list)
    created_twice: list[str] = field(default_factory=list)
    shown_to_others: list[str] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)

    predictions: int = 0
    stored: int = 0
    canceled: int = 0
    deleted: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    answers_lost: int = 0
    events: int = 0
    leftovers: int = 0
    seconds: float = 0

    @property
    def broken(self) -> dict[str, list[str]]:
        """The guarantees that did not hold, with the cases."""
        names = ["lost", "stored_twice", "created_twice", "shown_to_others", "left_behind", "stuck"]
        names += ["unexplained"]
        return {name: getattr(self, name) for name in names if getattr(self, name)}

    def row(self) -> dict[str, Any]:
        """The line of the table."""
        return {
            "predictions": self.predictions,
            "stored": self.stored,
            "canceled": self.canceled,
            "deleted": self.deleted,
            "kills": sum(self.kills.values()),
            "answers lost": self.answers_lost,
            "events": self.events,
            "lost": len(self.lost),
            "stored twice": len(self.stored_twice),
            "created twice": len(self.created_twice),
            "shown to others": len(self.shown_to_others),
            "left of deleted": len(self.left_behind),
            "stuck": len(self.stuck),
            "unknown": sum(self.unknown.values()),
            "unexplained": len(self.unexplained),
            "seconds": round(self.seconds),
        }


class Chaos:
    """One run: emulator, web and workers of a project, with a proxy on every way between them.

    ``named`` says where Replicate names a prediction's webhook, by which a row is found whose
    create was not answered: in its list, in its events. Every ``lost_every``th create has no
    answer; every event comes twice, except the share of them (``dropped``) that never comes.
    A prediction has as many outputs as one of ``outputs``.
    Workers find their servers at ``host``; ``on_host`` is what a process's command begins with.
    ``lease`` is the project's own, in seconds.
    """

    def __init__(
        self,
        project: Path,
        framework: str,
        database: Database,
        storage: Storage,
        *,
        named: Sequence[str] = ("list", "events"),
        lost_every: int = 10,
        dropped: float = 0.1,
        workers: int = 2,
        seed: int = 1,
        outputs: Sequence[int] = (1, 1, 2),
        host: str = "127.0.0.1",
        on_host: Callable[[str], Sequence[str]] = lambda _: (),
        lease: float = LEASE,
    ) -> None:
        self.project = built(project) if is_node(project) else project
        self.commands = PROJECTS[framework]
        self.database = database
        self.storage = storage
        self.named = named
        self.lost_every = lost_every
        self.dropped = dropped
        self.random = random.Random(seed)
        self.outputs = outputs
        self.on_host = on_host
        self.lease = lease
        self.report = Report()
        self.log = project.parent / "chaos.log"
        self._output = self.log.open("ab")
        self._loop = Loop()
        self._ports = {"web": free_port(), "emulator": free_port()}
        self.api = HttpProxy(self._loop, self._ports["emulator"], host)
        self.hooks = HttpProxy(self._loop, self._ports["web"])
        self.url = f"http://127.0.0.1:{self._ports['web']}"
        self.names = ["web", *(f"worker-{n}" for n in range(workers))]
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.RLock()
        self._env: dict[str, str] = {}
        self._callers: list[httpx.Client] = []
        self.started: list[Started] = []

    # --- processes

    @contextlib.contextmanager
    def up(self, callers: int = 3) -> Iterator[None]:
        """Everything started; everything ended afterwards."""
        try:
            self._up(callers)
            yield
        finally:
            with self._lock:
                for process in self.running.values():
                    _kill(process)
            self.api.close()
            self.hooks.close()
            self._output.close()

    def _up(self, callers: int) -> None:
        many = str(10**6)
        limits = ("CALLER_PER_MINUTE", "ADDRESS_PER_MINUTE", "DAILY_PREDICTIONS", "DAILY_SECONDS")
        self._env = project_env(
            self.project,
            **dict.fromkeys(limits, many),
            ENVIRONMENT="development",
            REPLICATE_API_TOKEN="r8_emulator",
            REPLICATE_BASE_URL=f"{self.api.url}/v1",
            PUBLIC_URL=self.hooks.url,
            DATABASE_URL=self.database.url,
            CANCEL_AFTER_SECONDS=str(CANCEL_AFTER),
            WORKER_CONCURRENCY="4",
            **self.storage.env,
        )
        self._start("emulator")
        self.emulator = httpx.Client(
            base_url=f"http://127.0.0.1:{self._ports['emulator']}",
            headers={"Authorization": "Bearer r8_emulator"},
            transport=httpx.HTTPTransport(retries=8),
            timeout=30,
        )
        secret = self.emulator.get("/v1/webhooks/default/secret").json()["key"]
        self._env["REPLICATE_WEBHOOK_SECRET"] = secret
        self.emulator.post(
            "/_emulator/settings",
            json={
                "webhook_repeat": 1,
                "webhook_drop": self.dropped,
                "list_webhook_field": "list" in self.named,
                "body_webhook_field": "events" in self.named,
                "webhook_tries": 4,
            },
        ).raise_for_status()
        self._run(self.commands.migrate)
        for name in self.names:
            self._start(name)
        creates = [0]

        def lost(request: Request) -> bool:
            if request.method != "POST" or not CREATES.match(request.path):
                return False
            creates[0] += 1
            return creates[0] % self.lost_every == 0

        self.api.lost = lost
        for _ in range(callers):
            self._callers.append(httpx.Client(base_url=self.url, timeout=30, trust_env=False))
            self.ask(len(self._callers) - 1, "GET", "/api/predictions")

    def _run(self, command: Sequence[str]) -> None:
        subprocess.run(
            command, cwd=self.project, env=self._env, stdout=self._output, stderr=self._output,
            check=True, timeout=120,
        )  # fmt: skip

    def _start(self, name: str) -> None:
        kind = name.partition("-")[0]
        port = str(self._ports.get(kind, 0))
        command = [part.format(port=port) for part in getattr(self.commands, kind)]
        its = {"DATABASE_URL": self.database.worker_url} if kind == "worker" else {}
        self.running[name] = subprocess.Popen(
            [*self.on_host(name), *command],
            cwd=self.project,
            env=self._env | its,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            start_new_session=True,
        )

    def kill(self, why: str, *names: str) -> None:
        """SIGKILL, and start again; only workers where no names are given."""
        with self._lock:
            chosen = names or [name for name in self.names if name != "web"]
            for name in chosen:
                _kill(self.running[name])
            self.report.kills[why] += len(chosen)

    def revive(self) -> None:
        """Start what does not run."""
        with self._lock:
            for name in self.names:
                if self.running[name].poll() is not None:
                    self._start(name)

    def ended(self) -> list[str]:
        """The processes that have ended without being killed."""
        return [name for name in self.names if self.running[name].poll() is not None]

    def add_worker(self, name: str) -> None:
        with self._lock:
            self.names.append(name)
            self._start(name)

    def signal_workers(self, number: int) -> None:
        with self._lock:
            for name in self.names:
                if name != "web":
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(self.running[name].pid, number)

    # --- load

    def begin(self, model: str = "flux-schnell", **given: Any) -> Started:
        """Start a prediction as a client does whose requests may be cut: with a key, until told."""
        with self._lock:
            caller = self.random.randrange(len(self._callers))
            key = f"{self.random.getrandbits(128):032x}"
            outputs = self.random.choice(self.outputs)
        body = {"model": model, "input": given or {"prompt": key, "num_outputs": outputs}}
        headers = {"Idempotency-Key": key, "Prefer": "respond-async"}
        reply = self.ask(caller, "POST", "/api/predictions", json=body, headers=headers)
        assert reply.status_code in (201, 202), reply.text
        self.started.append(Started(reply.json()["id"], caller, model))
        return self.started[-1]

    def load(self, predictions: int, pause: float, *, stops: bool = False) -> None:
        """Start so many, one after the other; with ``stops``, cancel and delete one in eight."""
        for number in range(predictions):
            made = self.begin()
            time.sleep(pause)
            if stops and number % 8 == 3:
                self.ask(made.caller, "POST", f"/api/predictions/{made.id}/cancel", headers=JSON)
                made.stopped = "canceled"
            elif stops and number % 8 == 6:
                self.ask(made.caller, "DELETE", f"/api/predictions/{made.id}", headers=JSON)
                made.stopped = "deleted"

    def ask(
        self, caller: int, method: str, path: str, seconds: float = 90, **options: Any
    ) -> httpx.Response:
        """Send a caller's request until it is answered, however often the server dies over it."""
        end = time.monotonic() + seconds
        while True:
            try:
                reply = self._callers[caller].request(method, path, **options)
                if reply.status_code < 500:
                    return reply
            except httpx.TransportError:
                if time.monotonic() > end:
                    raise
            assert time.monotonic() < end, f"{method} {path}"
            time.sleep(0.1)

    # --- the steps at which a process dies

    def before_create(self) -> None:
        """Replicate is being handed the input's file; the create itself has not been sent."""
        hold = self.api.hold("POST", "^/v1/files$", "request")
        file = {"file": ("a.png", b"\x89PNG\r\n\x1a\n" + os.urandom(64), "image/png")}
        with self._lock:  # the same caller for both
            state = self.random.getstate()
            caller = self.random.randrange(len(self._callers))
            self.random.setstate(state)
            origin = {"Origin": self.url}
            reply = self.ask(caller, "POST", "/api/files", files=file, headers=origin)
            self.begin("real-esrgan", image=reply.json()["url"])
        hold.wait()
        self.kill("before create")
        hold.drop()
        self.revive()

    def create_never_arrives(self) -> None:
        """The create is on its way, and never gets there: nobody can know."""
        hold = self.api.hold("POST", CREATES.pattern, "request")
        self.begin()
        hold.wait()
        self.kill("create on its way")
        hold.drop()
        self.revive()

    def before_the_answer_is_stored(self) -> None:
        """Replicate has created it, and its answer is on the way."""
        hold = self.api.hold("POST", CREATES.pattern, "answer")
        self.begin()
        hold.wait()
        self.kill("create's answer on its way")
        hold.drop()
        self.revive()

    def after_the_event_is_stored(self) -> None:
        """The web process has committed an event; no worker has looked at it yet."""
        arriving = self.hooks.hold("POST", WEBHOOK, "request")
        self.begin()
        arriving.wait()
        stored = self.hooks.hold("POST", WEBHOOK, "answer")
        self.signal_workers(signal.SIGSTOP)
        arriving.go_on()
        if not stored.reached.wait(3):  # a worker was stopped with the database's lock in its hand
            self.signal_workers(signal.SIGCONT)
        stored.wait()
        self.kill("event stored", *self.names)
        stored.drop()
        self.revive()

    def in_the_middle_of_a_download(self) -> None:
        hold = self.api.hold("GET", OUTPUT, "half")
        self.begin()
        hold.wait()
        self.kill("middle of a download")
        hold.drop()
        self.revive()

    def before_the_upload_is_recorded(self) -> None:
        """The object is in the storage; the row does not say so yet."""
        hold = self.api.hold("GET", OUTPUT, "half")
        made = self.begin(prompt=f"{self.random.random()}", num_outputs=1)
        hold.wait()
        stored = _outputs(self.storage)
        with self.database.standing_still():
            hold.go_on()
            _until(lambda: len(_outputs(self.storage) - stored) > 0, 30, f"no object of {made}")
            self.kill("upload not recorded")
        self.revive()

    def while_the_lease_is_renewed(self) -> None:
        """A download takes so long that its lease is renewed, and no answer to that comes back."""
        hold = self.api.hold("GET", OUTPUT, "half")
        self.begin()
        hold.wait()
        time.sleep(self.lease / 3 - 1.5)
        with self.database.standing_still():
            time.sleep(3)
            self.kill("lease being renewed")
        hold.drop()
        self.revive()

    def steps(self) -> list[Callable[[], None]]:
        return [
            self.create_never_arrives,
            self.before_the_answer_is_stored,
            self.before_create,
            self.after_the_event_is_stored,
            self.in_the_middle_of_a_download,
            self.before_the_upload_is_recorded,
            self.while_the_lease_is_renewed,
        ]

    def kill_at_random(self, stop: threading.Event, mean: float) -> None:
        """Until stopped: kill one process or all, and start it again at once."""
        while not stop.wait(self.random.expovariate(1 / mean)):
            names = self.random.choice([[name] for name in self.names] + [self.names])
            self.kill("at random", *names)
            self.revive()

    # --- the end

    def settle(self, seconds: float) -> None:
        """Wait until every prediction is over and stored; what is not, is stuck."""
        end = time.monotonic() + seconds
        open_ = [each for each in self.started if each.stopped != "deleted"]
        while open_ and time.monotonic() < end:
            self.revive()
            open_ = [each for each in open_ if not _settled(self.look(each))]
            time.sleep(0.5)
        self.report.stuck = [str(self.look(each)) for each in open_]

    def look(self, each: Started) -> dict[str, Any]:
        path = f"/api/predictions/{each.id}"
        found: dict[str, Any] = self.ask(each.caller, "GET", path).json()
        return found

    def verify(self) -> Report:
        """Compare what callers see with what Replicate made and what the storage holds."""
        report = self.report
        report.predictions = len(self.started)
        report.answers_lost = len(self.api.losses)
        made = self._made()
        gone = [each.id for each in self.started if each.stopped == "deleted"]
        report.left_behind = self._left_of(gone, 60)
        keys = self.storage.objects()
        self._listed = [self._everything_of(caller) for caller in range(len(self._callers))]
        stuck = {each.id for each in self.started if any(each.id in one for one in report.stuck)}
        for each in self.started:
            seen, its = self.look(each), made.pop(each.id, [])
            if len(its) > 1:
                report.created_twice.append(f"{each.id}: {[one['id'] for one in its]}")
            if each.id not in stuck:
                self._judge(each, seen, its, [key for key in keys if each.id in key])
            self._shown(each, seen)
        report.created_twice += [f"for nobody: {one}" for ids in made.values() for one in ids]
        known = {each.id for each in self.started}
        strangers = [key for key in keys if not any(row_id in key for row_id in known)]
        report.stored_twice += [key for key in strangers if not key.startswith("uploads/")]
        report.leftovers = len(self.storage.leftovers())
        report.events = len(self._delivered())
        return report

    def _left_of(self, gone: list[str], seconds: float) -> list[str]:
        """The objects of what was deleted that are still there after so long."""
        end = time.monotonic() + seconds
        while left := [key for key in self.storage.objects() if any(one in key for one in gone)]:
            if time.monotonic() > end:
                break
            time.sleep(0.5)
        return left

    def _made(self) -> dict[str, list[dict[str, Any]]]:
        """Everything that Replicate has created, by the id in its webhook's URL."""
        found: dict[str, list[dict[str, Any]]] = {}
        for prediction in self.emulator.get("/_emulator/predictions").json():
            named = re.search(r"[0-9a-f-]{32,36}", prediction["webhook"].partition("?")[2])
            assert named, prediction["webhook"]
            found.setdefault(named[0], []).append(prediction)
        return found

    def _judge(
        self, each: Started, seen: dict[str, Any], made: list[dict[str, Any]], keys: list[str]
    ) -> None:
        report = self.report
        if each.stopped == "deleted":
            report.deleted += 1
            if seen.get("title") != "Not found":
                report.left_behind.append(str(seen))
            return
        if seen.get("status") == "failed" and "unknown" in str(seen.get("error")):
            self._explain(each, made)
            return
        if each.stopped == "canceled" and seen.get("status") == "canceled":
            report.canceled += 1
            if any(one["status"] != "canceled" for one in made) or keys:
                report.lost.append(f"{seen} is not canceled; Replicate: {made}, {keys}")
            return
        if (seen.get("status"), seen.get("storage")) != ("succeeded", "stored") or not made:
            report.lost.append(f"{seen}; Replicate: {made}")
            return
        report.stored += 1
        urls, sources = _urls(seen["output"]), _urls(made[0]["output"])
        for url, source in zip(urls, sources, strict=True):
            try:
                kept = self.ask(each.caller, "GET", url, seconds=20)
            except httpx.TransportError as error:
                report.lost.append(f"{url} cannot be read: {error}")
                continue
            wanted = self.emulator.get(re.sub(r"^https?://[^/]+", "", source)).content
            if kept.status_code != 200 or _sha256(kept.content) != _sha256(wanted):
                report.lost.append(f"{url} is not what Replicate made: {kept.status_code}")
        if len(keys) != len(urls):
            report.stored_twice.append(f"{each.id}: {keys}")

    def _explain(self, each: Started, made: list[dict[str, Any]]) -> None:
        """Why nobody could know what became of it; unexplained where somebody could."""
        if not made:
            self.report.unknown["never reached Replicate"] += 1
        elif "list" not in self.named and not (
            "events" in self.named and any(each.id in url for url in self._delivered())
        ):
            self.report.unknown["created, named by no list and no event"] += 1
        else:
            self.report.unexplained.append(f"{each.id}: {made}")

    def _delivered(self) -> list[str]:
        """The URLs of all events that the service has taken."""
        deliveries = self.emulator.get("/_emulator/deliveries").json()
        return [each["url"] for each in deliveries if 200 <= each["status"] < 300]

    def _shown(self, each: Started, seen: dict[str, Any]) -> None:
        """Whether anyone else gets at it."""
        paths = [f"/api/predictions/{each.id}", *_urls(seen.get("output"))]
        for other in set(range(len(self._callers))) - {each.caller}:
            for path in paths:
                if self.ask(other, "GET", path).status_code != 404:
                    self.report.shown_to_others.append(f"{path} to {other}")
            if each.id in self._listed[other]:
                self.report.shown_to_others.append(f"{each.id} in the list of {other}")

    def _everything_of(self, caller: int) -> str:
        """All pages of what a caller's list shows."""
        text, query = "", ""
        while True:
            reply = self.ask(caller, "GET", f"/api/predictions?limit=100{query}")
            text += reply.text
            if reply.json()["next_cursor"] is None:
                return text
            query = f"&cursor={reply.json()['next_cursor']}"


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


def _until(true: Callable[[], bool], seconds: float, otherwise: str) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, otherwise
        time.sleep(0.02)


def _settled(prediction: dict[str, Any]) -> bool:
    over = prediction.get("status") in ("succeeded", "failed", "canceled", "aborted")
    return over and prediction.get("storage") != "pending"


def _urls(output: Any) -> list[str]:
    return [output] if isinstance(output, str) else list(output or [])


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _outputs(storage: Storage) -> set[str]:
    return {key for key in storage.objects() if not key.startswith("uploads/")}


def table(rows: Mapping[str, Report]) -> str:
    """The rows as Markdown, with the kills of each by step and what was unknown."""
    names = list(next(iter(rows.values())).row())
    lines = [" | ".join(["", *names]), " | ".join(["---"] * (len(names) + 1))]
    lines += [" | ".join([name, *map(str, one.row().values())]) for name, one in rows.items()]
    for name, report in rows.items():
        lines += ["", f"{name}: kills {dict(report.kills)}", f"  unknown {dict(report.unknown)}"]
        lines += [f"  left over by killed uploads: {report.leftovers}"]
        lines += [f"  BROKEN {what}: {cases}" for what, cases in report.broken.items()]
    return "\n".join(lines)


def run(
    chaos: Chaos,
    predictions: int,
    *,
    pause: float,
    stops: bool = False,
    steps: int = 1,
    random_seconds: float = 0,
    patience: float,
) -> Report:
    """The whole of it: load, the named steps (so often), kills at random, and what is left."""
    began = time.monotonic()
    with chaos.up(), ThreadPoolExecutor(2) as pool:
        load = pool.submit(chaos.load, predictions, pause, stops=stops)
        for step in chaos.steps() * steps:
            step()
        stop = threading.Event()
        killing = pool.submit(chaos.kill_at_random, stop, 1.5)
        time.sleep(random_seconds)
        stop.set()
        load.result()
        killing.result()
        chaos.settle(patience)
        report = chaos.verify()
    report.seconds = time.monotonic() - began
    return report
