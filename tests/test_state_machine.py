"""The state machine of a prediction, exhaustively, in both languages; and that the checks see a
mistake in it.

The rendered project's ``tests/test_state.py`` has the short version.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.node import NODE
from tests.rendering import ROOT

SOURCES = ROOT / "template/{{ python }}/src"
SOURCE = SOURCES / "inference/state.py"
NODE_SOURCE = ROOT / "template/{{ nextjs }}/src/lib/state.ts"
sys.path.insert(0, str(SOURCES))

from inference.prediction import Row  # noqa: E402
from inference.state import Step  # noqa: E402

NOW = 1_700_000_000.0
CANCEL_AFTER = 600.0
ROW = Row("a" * 32, "me", "::1", "m", "o/m", {}, created_at=NOW, due_at=NOW)
SENT = replace(ROW, sent_at=NOW)
KNOWN = replace(SENT, replicate_id="r1")
STATUSES = ["pending", "starting", "processing", "succeeded", "failed", "canceled", "aborted"]
ENDS = STATUSES[3:]
HOOK = f"https://x.test/api/webhooks/replicate?prediction={ROW.id}"


def loaded(source: str) -> ModuleType:
    """The state machine of this source, beside the real rest of the package."""
    module = ModuleType("inference.state_under_test")
    module.__package__ = "inference"
    sys.modules[module.__name__] = module
    exec(compile(source, "state.py", "exec"), module.__dict__)
    return module


class NodeState(ModuleType):
    """The state machine of a TypeScript source, in a process of Node's."""

    def __init__(self, source: Path) -> None:
        super().__init__("state")
        self.Step = Step
        self.process = subprocess.Popen(
            [str(NODE), str(ROOT / "tests/state_driver.ts"), str(source)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )

    def call(self, name: str, *given: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"name": name, "given": given}, default=asdict) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer["value"]

    def parse_remote(self, data: Any) -> SimpleNamespace:
        read = self.call("parseRemote", data)
        names = {re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", name): name for name in read}
        return SimpleNamespace(read=read, **{ours: read[name] for ours, name in names.items()})

    def observe(self, row: Row, remote: SimpleNamespace, now: float) -> Row:
        return Row(**self.call("observe", row, remote.read, now))

    def fail(self, row: Row, error: str, now: float) -> Row:
        return Row(**self.call("fail", row, error, now))

    def cancel_unsent(self, row: Row, now: float) -> Row:
        return Row(**self.call("cancelUnsent", row, now))

    def next_step(self, row: Row, now: float) -> Step:
        return Step(self.call("nextStep", row, now))

    def unknown_since(self, row: Row, cancel_after: float) -> Any:
        return self.call("unknownSince", row, cancel_after)


@contextlib.contextmanager
def in_node(folder: Path, source: str) -> Iterator[NodeState]:
    """The state machine of this source, beside the real module that it takes its rows from."""
    (folder / "state.ts").write_text(source, "utf-8")
    shutil.copy(NODE_SOURCE.with_name("prediction.ts"), folder)
    state = NodeState(folder / "state.ts")
    try:
        yield state
    finally:
        state.process.kill()
        state.process.communicate()


def said(status: str, **more: Any) -> dict[str, Any]:
    """What Replicate says about a prediction in this state, everywhere the same."""
    body: dict[str, Any] = {"id": "r1", "status": status, "version": "v" * 64, "webhook": HOOK}
    body["urls"] = {"stream": "https://stream.replicate.com/r1"}
    if status in ENDS:
        body["completed_at"] = "2023-11-14T22:15:00.000Z"
        body["metrics"] = {"predict_time": 2.5}
    if status == "succeeded":
        body["output"] = ["https://replicate.delivery/x.png"]
    if status == "failed":
        body["error"] = "out of memory"
    return body | more


# --- the checks: each takes a state machine and raises where it is wrong


def check_every_transition(state: ModuleType) -> None:
    """From every status by every word of Replicate's: forward, never back, never off an end."""
    for old, new in itertools.product(STATUSES, STATUSES[1:]):
        before: dict[str, Any] = {"status": old}
        row = replace(KNOWN, **before)
        after = state.observe(row, state.parse_remote(said(new)), NOW + 9)
        forward = old not in ENDS and STATUSES.index(new) >= STATUSES.index(old)
        assert after.status == (new if forward else old), (old, new)
        if old in ENDS:
            assert (after.storage, after.error, after.completed_at) == ("none", None, None)
        elif new in ENDS:
            assert after.completed_at == 1_700_000_100.0
            assert after.predict_seconds == 2.5
            assert after.error == said(new).get("error")
            assert after.remote_output == said(new).get("output")
            assert after.storage == ("pending" if new == "succeeded" else "none")
        else:
            assert (after.error, after.completed_at, after.predict_seconds) == (None, None, None)
        assert state.fail(row, "no", NOW).status == (old if old in ENDS else "failed")
        assert state.fail(row, "no", NOW).error == (None if old in ENDS else "no")


def check_outputs(state: ModuleType) -> None:
    empty = state.observe(KNOWN, state.parse_remote(said("succeeded", output=None)), NOW)
    assert (empty.status, empty.storage, empty.error) == ("succeeded", "none", None)
    gone = state.parse_remote(said("succeeded", output=None, data_removed=True))
    assert state.observe(KNOWN, gone, NOW).storage == "expired"
    assert "hour" in state.observe(KNOWN, gone, NOW).error
    kept = state.parse_remote(said("succeeded", output="x", data_removed=True))
    assert state.observe(KNOWN, kept, NOW).storage == "pending"
    value: Any
    for value in (0, "", False, [], {}):
        its = state.observe(KNOWN, state.parse_remote(said("succeeded", output=value)), NOW)
        assert (its.storage, its.remote_output) == ("pending", value)
    part = state.observe(KNOWN, state.parse_remote(said("failed", output=["x"])), NOW)
    assert (part.storage, part.remote_output) == ("none", None), "only a success has an output"
    late = state.observe(KNOWN, state.parse_remote(said("failed", completed_at=None)), NOW + 5)
    assert late.completed_at == NOW + 5


def check_whose_it_is(state: ModuleType) -> None:
    other = state.parse_remote(said("succeeded", id="r2"))
    assert state.observe(KNOWN, other, NOW) == KNOWN
    assert state.observe(SENT, other, NOW).replicate_id == "r2"
    silent = {"version": None, "urls": None, "metrics": None}
    knows = state.observe(SENT, state.parse_remote(said("failed")), NOW)
    assert state.observe(knows, state.parse_remote(said("failed") | silent), NOW) == knows
    waiting: Any = replace(SENT, ask_at=NOW + 60, failures=4)
    found = state.observe(waiting, state.parse_remote(said("starting")), NOW)
    assert (found.failures, found.ask_at) == (0, NOW + 60)
    canceled = replace(waiting, cancel_requested=True)
    found = state.observe(canceled, state.parse_remote(said("starting")), NOW)
    assert state.next_step(found, NOW) is state.Step.CANCEL, "at once"
    again = replace(found, ask_at=NOW + 2, failures=1)
    its = state.observe(again, state.parse_remote(said("processing")), NOW)
    assert (its.ask_at, its.failures) == (NOW + 2, 1)


def rows() -> Iterator[Row]:
    """Every combination of what decides about the next step, also those that cannot be."""
    status: Any
    storage: Any
    sent: Any
    known: Any
    cancel: Any
    deleted: Any
    erased: Any
    ask: Any
    for status, storage, sent, known, cancel, deleted, erased, ask in itertools.product(
        STATUSES, ("none", "pending", "stored"), (None, NOW), (None, "r1"), *[(False, True)] * 3,
        (None, NOW - 1, NOW, NOW + 1),
    ):  # fmt: skip
        yield replace(
            ROW,
            status=status,
            storage=storage,
            sent_at=sent,
            replicate_id=known,
            cancel_requested=cancel,
            deleted_at=NOW if deleted else None,
            erased=erased,
            ask_at=ask,
        )


def check_every_step(state: ModuleType) -> None:
    for row in rows():
        step = state.next_step(row, NOW).name
        due = row.ask_at is None or row.ask_at <= NOW
        if row.status in ENDS:
            erase = row.deleted_at is not None and not row.erased
            wanted = "ERASE" if erase else "STORE" if row.storage == "pending" else "REST"
        elif not due:
            wanted = "REST"
        elif row.replicate_id is not None:
            wanted = "CANCEL" if row.cancel_requested else "ASK"
        elif row.sent_at is not None:
            wanted = "ADOPT"
        else:
            wanted = "CANCEL" if row.cancel_requested else "CREATE"
        assert step == wanted, row


def check_any_order(state: ModuleType) -> None:
    """Start, completed, the answers to create, cancel and ask: lost, repeated, in any order."""

    @settings(max_examples=300, deadline=None, database=None, derandomize=True)
    @given(st.sampled_from(ENDS), st.lists(st.sampled_from(["starting", "processing", "end"])),
           st.integers(0, 12))  # fmt: skip
    def ends_the_same(end: str, messages: list[str], canceled_after: int) -> None:
        row = SENT
        over: Row | None = None
        for number, message in enumerate([*messages, "end"]):
            if number == canceled_after and not row.over:
                row = replace(row, cancel_requested=True)
            remote = state.parse_remote(said(end if message == "end" else message))
            row = state.observe(row, remote, NOW + number)
            if over is not None:
                assert row == over, "nothing changes behind the end"
            over = row if row.over else None
        alone = state.observe(SENT, state.parse_remote(said(end)), NOW)
        assert replace(row, cancel_requested=False) == alone

    ends_the_same()


class World:
    """Replicate, one row, and a worker that may die between any two acts."""

    def __init__(self, state: ModuleType, chance: random.Random, named: bool) -> None:
        self.state, self.chance, self.named = state, chance, named
        self.row, self.now = ROW, NOW
        self.creates = 0
        self.truth: str | None = None
        self.cancels = 0
        self.quiet = False
        self.over: tuple[Any, ...] | None = None

    def remote(self, status: str | None = None) -> Any:
        return self.state.parse_remote(said(status or str(self.truth)))

    def lost(self) -> bool:
        return not self.quiet and self.chance.random() < 0.3

    def move(self) -> None:
        """Replicate goes on with it."""
        if self.truth in ("starting", "processing"):
            further = {"starting": ["processing", "aborted"], "processing": ENDS[:3]}
            self.truth = self.chance.choice(further[str(self.truth)])

    def event(self) -> None:
        """A webhook, as late as it may be: whatever Replicate has said up to now."""
        if self.truth is None or not self.named:
            return
        told = ["starting", "processing", self.truth]
        self.write(self.state.observe(self.row, self.remote(self.chance.choice(told)), self.now))

    def cancel(self) -> None:
        """As the store does it."""
        row = self.row
        if row.over:
            return
        if row.sent_at is None and row.status == "pending":
            self.write(replace(row, status="canceled", cancel_requested=True))
        else:
            self.write(replace(row, cancel_requested=True, ask_at=None))

    def delete(self) -> None:
        self.cancel()
        self.write(replace(self.row, deleted_at=self.now))

    def write(self, row: Row) -> None:
        """What the database has from now on; what is over must stay as it is."""
        its = (row.status, row.error, row.completed_at)
        assert self.over in (None, its), f"{self.over} became {its}"
        self.over = its if row.over else None
        self.row = row

    def step(self) -> None:
        """One step of a worker; it may die before any write, and answers may be lost."""
        row, name = self.row, self.state.next_step(self.row, self.now).name
        match name:
            case "CREATE":
                if self.lost():
                    return
                self.write(row := replace(row, sent_at=self.now, ask_at=self.now + 2))
                if self.lost():
                    return  # died before it went out
                if not self.quiet and self.chance.random() < 0.2:  # throttled: nothing was created
                    if self.lost():
                        self.cancel()  # its caller has enough of it meanwhile
                    self.write(replace(self.row, sent_at=None, ask_at=self.now + 5))
                    return
                self.creates += 1
                self.truth = "starting"
                if not self.lost():
                    self.write(self.state.observe(row, self.remote(), self.now))
            case "ADOPT":
                if self.lost():
                    self.write(replace(row, ask_at=self.now + 10))  # the list did not answer
                elif self.truth is not None and self.named:
                    self.write(self.state.observe(row, self.remote(), self.now))
                elif self.now > self.state.unknown_since(row, CANCEL_AFTER):
                    self.write(self.state.fail(row, self.state.UNKNOWN, self.now))
                else:
                    self.write(replace(row, ask_at=self.now + 10))
            case "CANCEL" if row.replicate_id is None:
                assert row.sent_at is None, "Replicate may have it"
                self.write(self.state.cancel_unsent(row, self.now))
            case "CANCEL" | "ASK":
                if name == "CANCEL":
                    self.cancels += 1
                    if self.truth in ("starting", "processing"):
                        self.truth = "canceled"
                elif self.quiet:
                    self.move()
                if not self.lost():
                    seen = self.state.observe(row, self.remote(), self.now)
                    self.write(replace(seen, ask_at=self.now + 2))
            case "STORE" if not self.lost():
                self.write(replace(row, storage="stored", remote_output=None))
            case "ERASE" if not self.lost():
                self.write(replace(row, storage="none", erased=True))


def check_any_life(state: ModuleType) -> None:
    """Whatever is lost and whoever dies: one create at most, and the end is Replicate's word."""
    for seed in range(1500):
        chance = random.Random(seed)
        world = World(state, chance, named=chance.random() < 0.8)
        acts = [world.step, world.step, world.move, world.event, world.cancel, world.delete]
        weights = [6, 6, 3, 3, 0.4, 0.2]
        for _ in range(chance.randrange(25)):
            chance.choices(acts, weights)[0]()
            world.now += chance.choice([0, 1, 3, 20, 400])
        world.quiet = True
        for _ in range(300):
            world.step()
            world.now += 10
        row = world.row
        assert world.creates <= 1, seed
        assert row.settled, (seed, row)
        assert state.next_step(row, world.now) is state.Step.REST, (seed, row)
        assert row.deleted_at is None or row.erased, (seed, row)
        if row.error != state.UNKNOWN:
            wanted = world.truth or "canceled"
            assert row.status == wanted, (seed, row, world.truth)
            assert row.deleted_at or row.storage == (
                "stored" if wanted == "succeeded" else "none"
            ), (seed, row)
        else:
            assert world.truth is None or not world.named, (seed, row, world.truth)
            assert world.now > NOW + CANCEL_AFTER


def check_what_is_read(state: ModuleType) -> None:
    """Anything that JSON can say is a prediction or a ValueError, and can then be shown."""
    wrong: Any
    more: dict[str, Any]
    for wrong in (
        None, 1, [], {}, {"id": 1}, {"id": "", "status": "failed"},
        {"id": "x" * 65, "status": "failed"}, {"id": "a b", "status": "failed"},
        {"id": "x", "status": "pending"}, {"id": "x", "status": "cancelled"},
        {"id": "x", "status": ["failed"]},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="prediction"):
            state.parse_remote(wrong)
    for more in (
        {"metrics": {"predict_time": 10**400}}, {"metrics": None}, {"metrics": []},
        {"metrics": {"predict_time": "2"}}, {"version": "x" * 65}, {"version": 1}, {"urls": 0},
        {"urls": {"stream": 1}}, {"webhook": 1}, {"completed_at": 1},
        {"completed_at": "0001-01-01T00:00:00+14:00"}, {"completed_at": "9999-12-31T23:59:59-12"},
    ):  # fmt: skip
        remote = state.parse_remote(said("failed") | more)
        assert remote.predict_seconds in (None, 2.5)
        assert remote.version in (None, "v" * 64)
        assert remote.completed_at is None or remote.completed_at > 0
    url = "https://x.test/api/webhooks/replicate?prediction="
    for webhook, named in (
        (url + "a" * 32, "a" * 32), (f"{url}{'a' * 32}&b=1", "a" * 32),
        (url.replace("?", "?b=1&") + "a" * 32, "a" * 32), (url + "a" * 33, None),
        (url + "A" * 32, None), (url.replace("prediction", "xprediction") + "a" * 32, None),
        (None, None), (1, None),
    ):  # fmt: skip
        assert state.parse_remote(said("starting", webhook=webhook)).row_id == named


def check_depth(state: ModuleType) -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested"):
        state.parse_remote(said("succeeded", output=deep))


def check_what_we_end_ourselves(state: ModuleType) -> None:
    canceled = state.cancel_unsent(replace(ROW, cancel_requested=True), NOW + 5)
    assert (canceled.status, canceled.completed_at, canceled.error) == ("canceled", NOW + 5, None)
    assert state.unknown_since(replace(SENT, created_at=NOW - 99), 600) == NOW + 660


CHECKS = [
    check_every_transition,
    check_outputs,
    check_whose_it_is,
    check_every_step,
    check_any_order,
    check_any_life,
    check_what_is_read,
    check_depth,
    check_what_we_end_ourselves,
]
# Not a million calls to another process, and no JSON of a depth that ours does not write.
NODE_CHECKS = [check for check in CHECKS if check not in (check_any_life, check_depth)]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_state_machine(check: Any) -> None:
    check(loaded(SOURCE.read_text("utf-8")))


@pytest.mark.slow
@pytest.mark.parametrize("check", NODE_CHECKS, ids=lambda check: check.__name__)
def test_the_state_machine_in_typescript(check: Any, tmp_path: Path) -> None:
    with in_node(tmp_path, NODE_SOURCE.read_text("utf-8")) as state:
        check(state)


@pytest.mark.parametrize(
    ("right", "mistake"),
    [
        ('"processing": 2}', '"processing": 1}'),
        ("dict.fromkeys(TERMINAL, 3)", "dict.fromkeys(TERMINAL, 1)"),
        ("if row.replicate_id not in (None, remote.id):", "if False:"),
        ("if row.over or _RANK", "if _RANK"),
        ("or _RANK[remote.status] < _RANK[row.status]", ""),
        ("if remote.status not in TERMINAL:", "if False:"),
        ("row.version_ran or remote.version", "remote.version"),
        ("remote.predict_seconds if row.predict_seconds is None else", "None or"),
        ("completed_at=remote.completed_at or now", "completed_at=now"),
        ("completed_at=remote.completed_at or now", "completed_at=remote.completed_at"),
        ("error=remote.error", "error=None"),
        ('if row.status != "succeeded":', "if False:"),
        ("if remote.data_removed and remote.output is None:", "if remote.data_removed:"),
        ("if remote.data_removed and remote.output is None:", "if remote.output is None:"),
        ("if remote.output is None:\n        return", "if not remote.output:\n        return"),
        ('storage="pending", remote_output', 'storage="none", remote_output'),
        ("failures=0, ask_at=None if", "ask_at=None if"),
        ("ask_at=None if row.cancel_requested else row.ask_at", "ask_at=row.ask_at"),
        ("ask_at=None if row.cancel_requested else row.ask_at", "ask_at=None"),
        ("    if row.replicate_id is None:\n        # Found", "    if True:\n        # Found"),
        ("return row if row.over else replace(row, status", "return replace(row, status"),
        ('status="canceled", completed_at=now', "completed_at=now"),
        ("if row.deleted_at is not None and not row.erased:", "if row.deleted_at is not None:"),
        ("if row.deleted_at is not None and not row.erased:", "if False:"),
        ('Step.STORE if row.storage == "pending" else Step.REST', "Step.REST"),
        ("row.ask_at is not None and now < row.ask_at", "False"),
        ("now < row.ask_at", "now <= row.ask_at"),
        ("if row.replicate_id is None and row.sent_at is not None:\n        return Step.ADOPT",
         "if row.replicate_id is None and row.sent_at is not None:\n        return Step.CREATE"),
        ("if row.replicate_id is None and not row.cancel_requested", "if row.replicate_id is None"),
        ("return Step.CANCEL if row.cancel_requested else Step.ASK", "return Step.ASK"),
        ("row.sent_at or row.created_at", "row.created_at"),
        ("+ cancel_after + ADOPTION_MARGIN", "+ ADOPTION_MARGIN"),
        ("+ cancel_after + ADOPTION_MARGIN", "+ cancel_after"),
        ('or status == "pending"', ""),
        (r"[\w-]{1,64}", r"[\w-]{1,99}"),
        ("and len(version) <= 64", ""),
        ("    except OverflowError:", "    except ZeroDivisionError:"),
        ("if seconds > 0 else None", ""),
        ("    except RecursionError:", "    except ZeroDivisionError:"),
        ("[?&]prediction=", "prediction="),
        ("([0-9a-f]{32})(?:&|$)", "([0-9a-f]{32})"),
        ("([0-9a-f]{32})", "([0-9a-fA-F]{32})"),
    ],
)  # fmt: skip
def test_a_mistake_is_seen(right: str, mistake: str) -> None:
    source = SOURCE.read_text("utf-8")
    assert source.count(right) == 1
    assert seen(CHECKS, loaded(source.replace(right, mistake)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "mistake"),
    [
        ("processing: 2,", "processing: 1,"),
        ("if (row.replicate_id !== null && row.replicate_id !== remote.id) return row;", ""),
        ("if (isOver(seen) || RANK", "if (RANK"),
        ("|| RANK[remote.status] < RANK[seen.status]", ""),
        ("found ? 0 : row.failures", "row.failures"),
        ("found ? 0 : row.failures", "0"),
        ("found && row.cancel_requested ? null", "false ? null"),
        ("found && row.cancel_requested ? null", "row.cancel_requested ? null"),
        ("row.version_ran ?? remote.version", "remote.version"),
        ("row.predict_seconds ?? remote.predictSeconds", "remote.predictSeconds"),
        ("completed_at: remote.completedAt ?? now", "completed_at: now"),
        ("completed_at: remote.completedAt ?? now", "completed_at: remote.completedAt"),
        ("error: remote.error", "error: null"),
        ('if (remote.status !== "succeeded") return over;', ""),
        ("if (remote.output !== null)", "if (remote.output)"),
        ("return remote.dataRemoved ?", "return false ?"),
        ("return isOver(row) ? row : { ...row,", "return { ...row,"),
        ("if (row.deleted_at !== null && !row.erased)", "if (row.deleted_at !== null)"),
        ('row.storage === "pending" ? "store"', 'false ? "store"'),
        ("if (row.ask_at !== null && now < row.ask_at)", "if (false)"),
        ('&& row.sent_at !== null) return "adopt"', '&& row.sent_at !== null) return "create"'),
        ("row.replicate_id === null && !row.cancel_requested", "row.replicate_id === null"),
        ('row.cancel_requested ? "cancel" : "ask"', '"ask"'),
        ("(row.sent_at ?? row.created_at)", "row.created_at"),
        ("+ cancelAfter + ADOPTION_MARGIN", "+ ADOPTION_MARGIN"),
        ("+ cancelAfter + ADOPTION_MARGIN", "+ cancelAfter"),
        ('&& status !== "pending"', ""),
        ("&& data.version.length <= 64", ""),
        ("milliseconds > 0 ?", "milliseconds ?"),
        ("[?&]prediction=", "prediction="),
        ("([0-9a-f]{32})(?:&|$)", "([0-9a-f]{32})"),
    ],
)  # fmt: skip
def test_a_mistake_in_typescript_is_seen(right: str, mistake: str, tmp_path: Path) -> None:
    source = NODE_SOURCE.read_text("utf-8")
    assert source.count(right) == 1
    with in_node(tmp_path, source.replace(right, mistake)) as wrong:
        assert seen(NODE_CHECKS, wrong)


def seen(checks: list[Any], wrong: ModuleType) -> bool:
    """Whether one of the checks fails."""
    for check in checks:
        try:
            check(wrong)
        except (Exception, pytest.fail.Exception):
            return True
    return False
