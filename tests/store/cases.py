"""What every store must do, whatever it is made of; run by ``test_stores.py`` in a project."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import secrets
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from inference.prediction import Row, StoredFile
from inference.store import Event, KeyReused, LimitReached, Limits, RunLately, Store, Upload
from tests.store.adapters import open_store

NO_LIMITS = Limits(10**6, 10**6, 10**6, 1e9)
LEASE = 30.0
ROUNDS = 100
"""How often two that race are let loose: a window of microseconds is hit by repetition only."""


@pytest.fixture(scope="session")
def opened() -> Store:
    return open_store()


@pytest.fixture
def store(opened: Store) -> Store:
    """The store with nothing due: what earlier cases left rests."""
    rest(opened)
    return opened


def rest(store: Store) -> None:
    while row := store.claim(time.time() + 10**6, LEASE):
        store.save(row, replace(row, due_at=None, leased=False), store.events(row))


def new_row(**values: Any) -> Row:
    now = time.time()
    row = Row(
        id=secrets.token_hex(16),
        owner="me",
        address="::1",
        model="m",
        ref="o/m",
        input={"prompt": "x"},
        created_at=now,
        due_at=now,
    )
    return replace(row, **values)


def added(store: Store, **values: Any) -> Row:
    return store.add(new_row(**values), NO_LIMITS)


def claimed(store: Store, later: float = 0.0) -> Row:
    row = store.claim(time.time() + later, LEASE)
    assert row is not None
    return row


def sent(store: Store, **values: Any) -> Row:
    """A row in a worker's hands whose create has gone out."""
    added(store)
    row = claimed(store)
    assert store.mark_sent(row, time.time())
    new = replace(row, sent_at=time.time(), status="starting", replicate_id=secrets.token_hex(8))
    new = replace(new, **values)
    assert store.note(row, new)
    return new


def given_back(store: Store, row: Row, **values: Any) -> Row:
    new = replace(row, **({"due_at": time.time() + 60, "leased": False} | values))
    assert store.save(row, new)
    return new


def event_for(row: Row, **values: Any) -> Event:
    event = Event(f"msg_{secrets.token_hex(8)}", "r", row.id, {"id": "r"}, time.time())
    return replace(event, **values)


def found(store: Store, row: Row) -> Row:
    row_now = store.get(row.id)
    assert row_now is not None
    return row_now


# --- claims


def test_the_longest_due_is_claimed_first_and_once(store: Store) -> None:
    now = time.time()
    rows = [added(store, due_at=now - seconds) for seconds in (1, 3, 2)]
    added(store, due_at=now + 100)
    added(store, due_at=None)
    order = [store.claim(now, LEASE) for _ in range(4)]
    assert order[3] is None
    for row, wanted in zip(order, [rows[1], rows[2], rows[0]], strict=False):
        assert row == replace(wanted, due_at=now + LEASE, leased=True, attempts=1)


def test_a_dead_workers_row_comes_due_again(store: Store) -> None:
    added(store)
    first = claimed(store)
    assert store.claim(time.time() + LEASE - 2, LEASE) is None
    second = claimed(store, LEASE + 1)
    assert (second.id, second.attempts) == (first.id, first.attempts + 1)


def test_a_renewed_lease_runs_longer(store: Store) -> None:
    added(store)
    row = claimed(store)
    assert store.renew(row, time.time() + 2 * LEASE)
    assert store.claim(time.time() + LEASE + 5, LEASE) is None
    assert claimed(store, 2 * LEASE + 5).id == row.id


# --- fences


WRITES: dict[str, Callable[[Store, Row], bool]] = {
    "save": lambda store, row: store.save(row, replace(row, status="failed", error="late")),
    "note": lambda store, row: store.note(row, replace(row, status="failed", error="late")),
    "renew": lambda store, row: store.renew(row, time.time() + 1000),
    "mark_sent": lambda store, row: store.mark_sent(row, time.time()),
}


def overtaken(store: Store, row: Row) -> None:
    assert claimed(store, LEASE + 1).id == row.id


def gave_back(store: Store, row: Row) -> None:
    given_back(store, row)


def canceled(store: Store, row: Row) -> None:
    its = store.request_cancel(row.id, time.time())
    assert its is not None
    assert its.status == "canceled"


@pytest.mark.parametrize("lose", [overtaken, gave_back, canceled])
@pytest.mark.parametrize("write", WRITES)
def test_who_has_lost_a_row_cannot_write(
    store: Store, write: str, lose: Callable[[Store, Row], None]
) -> None:
    added(store)
    row = claimed(store)
    lose(store, row)
    before = found(store, row)
    assert WRITES[write](store, row) is False
    assert found(store, row) == before


def test_the_one_who_has_it_writes(store: Store) -> None:
    added(store)
    row = claimed(store)
    noted = replace(row, status="processing", replicate_id=secrets.token_hex(8))
    assert store.note(row, noted)
    assert found(store, row) == noted
    last = given_back(store, noted, status="failed", error="no", due_at=None)
    assert found(store, row) == last


def test_a_create_goes_out_once(store: Store) -> None:
    added(store)
    row = claimed(store)
    now = time.time()
    assert store.mark_sent(row, now)
    assert not store.mark_sent(row, now + 1)
    assert found(store, row).sent_at == now


def test_what_was_not_sent_after_all_may_be_sent_again(store: Store) -> None:
    added(store)
    row = claimed(store)
    assert store.mark_sent(row, time.time())
    given_back(store, row, due_at=time.time(), sent_at=None)
    assert store.mark_sent(claimed(store), time.time())


# --- events


def test_an_event_wakes_its_row(store: Store) -> None:
    by_id, by_replicate_id, other = (given_back(store, sent(store)) for _ in range(3))
    assert store.receive([event_for(by_id, replicate_id=secrets.token_hex(8))])
    event = event_for(by_replicate_id, row_id=None, replicate_id=by_replicate_id.replicate_id)
    assert store.receive([event])
    woken = {claimed(store).id, claimed(store).id}
    assert woken == {by_id.id, by_replicate_id.id}
    assert store.claim(time.time(), LEASE) is None
    assert [each.id for each in store.events(by_replicate_id)] == [event.id]
    assert store.events(other) == []


def test_a_known_event_changes_nothing(store: Store) -> None:
    row = given_back(store, sent(store))
    event = event_for(row)
    assert store.receive([event])
    mine = claimed(store)
    assert [each.id for each in store.events(mine)] == [event.id]
    assert store.save(mine, replace(mine, due_at=None, leased=False), [event])
    assert not store.receive([replace(event, body={"id": "other"})])
    assert store.claim(time.time(), LEASE) is None
    assert store.events(mine) == []


def test_events_come_in_their_order(store: Store) -> None:
    row = sent(store)
    now = time.time()
    events = [event_for(row, received_at=now - seconds) for seconds in (1, 3, 2)]
    assert store.receive(events) == 3
    assert [each.id for each in store.events(row)] == [events[i].id for i in (1, 2, 0)]


def test_an_event_for_a_leased_row_waits_for_its_worker(store: Store) -> None:
    row = sent(store)
    assert store.receive([event_for(row)])
    assert store.claim(time.time(), LEASE) is None, "the lease holds"
    given_back(store, row)
    assert claimed(store).id == row.id, "due at once"


def test_an_event_by_an_id_that_only_its_create_tells(store: Store) -> None:
    added(store)
    row = claimed(store)
    store.mark_sent(row, time.time())
    event = event_for(row, row_id=None, replicate_id="early" + secrets.token_hex(8))
    assert store.receive([event])
    given_back(store, row, sent_at=time.time(), replicate_id=event.replicate_id)
    again = claimed(store)
    assert [each.id for each in store.events(again)] == [event.id]


def test_nobodys_event_is_kept_and_harms_nobody(store: Store) -> None:
    row = given_back(store, sent(store))
    event = event_for(row, row_id="f" * 32, replicate_id="nobodys")
    assert store.receive([event])
    assert not store.receive([event])
    assert store.claim(time.time(), LEASE) is None


def test_events_that_come_together(store: Store) -> None:
    rows = [given_back(store, sent(store)) for _ in range(3)]
    known, first, second = (event_for(row) for row in rows)
    assert store.receive([known]) == 1
    rest(store)
    assert store.receive([first, known, first, second]) == 2
    assert {claimed(store).id, claimed(store).id} == {first.row_id, second.row_id}
    assert store.claim(time.time(), LEASE) is None


def test_of_events_that_come_together_all_are_kept_or_none(store: Store) -> None:
    rows = [given_back(store, sent(store)) for _ in range(2)]
    good, broken = (event_for(row) for row in rows)
    with pytest.raises(Exception, match=r"(?i)not.null"):
        store.receive([good, replace(broken, replicate_id=None)])  # type: ignore[arg-type]
    assert store.claim(time.time(), LEASE) is None
    assert store.receive([good]) == 1
    assert claimed(store).id == good.row_id


def at_once(*acts: Callable[[], Any]) -> list[Any]:
    """Do several things in the same moment."""
    barrier = threading.Barrier(len(acts))

    def start(act: Callable[[], Any]) -> Any:
        barrier.wait()
        return act()

    with concurrent.futures.ThreadPoolExecutor(len(acts)) as pool:
        return [each.result() for each in [pool.submit(start, act) for act in acts]]


def test_of_events_that_come_together_none_waits_for_another(store: Store) -> None:
    """Two batches about the same predictions, in opposite orders."""
    rows = [given_back(store, sent(store)) for _ in range(8)]
    for _ in range(ROUNDS // 4):
        ids = [{"replicate_id": row.replicate_id or ""} for row in rows]
        first = [event_for(row, **its) for row, its in zip(rows, ids, strict=True)]
        second = [event_for(row, **its) for row, its in zip(rows, ids, strict=True)]
        kept = at_once(
            partial(store.receive, first), partial(store.receive, [*second[::-1], *first[::-1]])
        )
        assert sum(kept) == 16


def test_no_event_is_slept_through(store: Store) -> None:
    """The event comes in the moment in which the worker gives the row back."""
    for _ in range(ROUNDS):
        row = sent(store)
        back = replace(row, due_at=time.time() + 60, leased=False)
        at_once(
            partial(store.receive, [event_for(row)]),
            partial(store.save, row, back),
        )
        again = claimed(store)
        assert again.id == row.id
        store.save(again, replace(again, due_at=None, leased=False), store.events(again))


# --- what callers ask for


def test_a_cancel_before_it_was_sent(store: Store) -> None:
    row = added(store)
    its = store.request_cancel(row.id, time.time())
    assert its is not None
    assert (its.status, its.sent_at, its.due_at) == ("canceled", None, None)
    assert its.completed_at is not None
    assert store.claim(time.time() + 1000, LEASE) is None
    assert store.request_cancel(row.id, time.time()) is None
    assert found(store, row) == its


def test_a_cancel_of_one_that_waits_to_be_asked_about(store: Store) -> None:
    row = given_back(store, sent(store), ask_at=time.time() + 60)
    its = store.request_cancel(row.id, time.time())
    assert its is not None
    assert (its.status, its.cancel_requested, its.ask_at) == ("starting", True, None)
    assert claimed(store).id == row.id


def test_a_cancel_of_one_in_a_workers_hands(store: Store) -> None:
    row = sent(store)
    assert store.request_cancel(row.id, time.time()) is not None
    assert store.claim(time.time(), LEASE) is None, "the lease holds"
    given_back(store, row, ask_at=time.time() + 60)
    again = claimed(store)
    assert (again.id, again.cancel_requested, again.ask_at) == (row.id, True, None)


@pytest.mark.parametrize("status", ["succeeded", "failed", "canceled", "aborted"])
def test_what_is_over_stays_as_it_is(store: Store, status: Any) -> None:
    row = given_back(store, sent(store), status=status, due_at=None)
    assert store.request_cancel(row.id, time.time()) is None
    assert found(store, row) == row
    assert store.delete(row.id, time.time()) is None
    assert claimed(store).status == status


def test_a_cancel_races_the_create(store: Store) -> None:
    outcomes = Counter[bool]()
    for _ in range(ROUNDS):
        added(store)
        row = claimed(store)
        went, _ = at_once(
            partial(store.mark_sent, row, time.time()),
            partial(store.request_cancel, row.id, time.time()),
        )
        now = found(store, row)
        assert now.cancel_requested
        assert (now.status, now.sent_at is None) == (
            ("pending", False) if went else ("canceled", True)
        )
        outcomes[went] += 1
        rest(store)
    print(f"cancel races the create: {outcomes[True]} sent first, {outcomes[False]} canceled first")


def test_a_cancel_races_the_end(store: Store) -> None:
    for _ in range(ROUNDS):
        row = sent(store)
        over = replace(row, status="succeeded", due_at=None, leased=False)
        saved, asked = at_once(
            partial(store.save, row, over),
            partial(store.request_cancel, row.id, time.time()),
        )
        assert saved
        now = found(store, row)
        assert now.status == "succeeded"
        assert now.cancel_requested == (asked is not None)


def test_a_deleted_row_is_hidden_and_due(store: Store) -> None:
    rested = given_back(store, sent(store), status="succeeded", due_at=None)
    in_hand = sent(store)
    for row in (rested, in_hand):
        its = store.delete(row.id, time.time())
        assert (its and (its.id, its.status)) == (None if row is rested else (row.id, row.status))
        assert store.get(row.id) is None
        assert row.id not in [each.id for each in store.page("me", None, 1000)]
        assert row.id in [each.id for each in store.usage(0)]
    assert claimed(store).id == rested.id
    assert store.claim(time.time(), LEASE) is None, "the lease holds"
    given_back(store, in_hand, due_at=None, status="succeeded")
    again = claimed(store)
    assert again.id == in_hand.id
    assert again.deleted_at is not None


def test_a_deleted_unsent_row_is_canceled(store: Store) -> None:
    added(store)
    row = claimed(store)
    its = store.delete(row.id, time.time())
    assert its is not None
    assert (its.id, its.status, its.sent_at) == (row.id, "canceled", None)
    assert not store.mark_sent(row, time.time())
    again = claimed(store)
    assert (again.status, again.sent_at) == ("canceled", None)
    assert again.deleted_at is not None


def everything() -> str:
    """All that the database holds, as text."""
    url = os.environ["DATABASE_URL"]
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            return "\n".join(connection.iterdump())
    import psycopg

    with psycopg.connect(url) as connection:
        names = connection.execute("select tablename from pg_tables where schemaname = 'public'")
        tables = [name for (name,) in names.fetchall()]
        rows = [connection.execute(f'select * from "{name}"').fetchall() for name in tables]
    return repr(rows)


def test_what_a_handled_event_said_is_not_kept(store: Store) -> None:
    secret = secrets.token_hex(16)
    row = sent(store)
    event = event_for(row, body={"id": "r", "output": secret})
    store.receive([event])
    assert secret in everything()
    assert store.save(row, replace(row, due_at=None, leased=False), store.events(row))
    assert secret not in everything()
    assert event.id in everything()


# --- rows


@pytest.mark.parametrize(
    "value",
    [
        "😀 \u2028 ' \" \\ %s {}",
        [1e-05, True, None],
        *([] if os.environ["STORE_FRAMEWORK"] == "nextjs" else [[2**53 + 1, -0.0]]),
        {"a": {"b": [[], {}, ""]}},
        "",
        0,
        False,
        [],
    ],
    ids=repr,
)
def test_values_come_back_as_they_were(store: Store, value: Any) -> None:
    row = added(store, input={"prompt": value}, created_at=1_700_000_000.123456)
    assert found(store, row) == row
    mine = claimed(store)
    files = [{"key": "k", "content_type": "image/png", "size": 5 * 2**40, "sha256": "0" * 64}]
    new = given_back(store, mine, remote_output=value, output={"x": value}, files=files)
    assert found(store, row) == new
    assert repr(found(store, row).output) == repr({"x": value})


def test_one_key_is_one_row_however_many_ask(store: Store) -> None:
    key = secrets.token_hex(8)
    rows = at_once(*[lambda: added(store, idempotency_key=key).id] * 8)
    assert len(set(rows)) == 1
    with pytest.raises(KeyReused):
        added(store, idempotency_key=key, model="other")
    assert added(store, idempotency_key=key, owner="another").id not in rows
    store.delete(rows[0], time.time())
    with pytest.raises(KeyReused):
        added(store, idempotency_key=key)


def test_a_limit_holds_however_many_start(store: Store) -> None:
    owner = secrets.token_hex(8)
    limits = replace(NO_LIMITS, caller_per_minute=5)

    def start() -> bool:
        try:
            store.add(new_row(owner=owner), limits)
        except LimitReached:
            return False
        return True

    assert sum(at_once(*[start] * 12)) == 5


def new_upload(**values: Any) -> Upload:
    upload = Upload(secrets.token_hex(16), secrets.token_hex(8), "::1", time.time())
    return replace(upload, **values)


def test_an_upload_is_known_before_its_file(store: Store) -> None:
    upload = new_upload()
    assert store.upload(upload.id) is None
    store.add_upload(upload, NO_LIMITS)
    assert store.upload(upload.id) == upload
    kept = replace(upload, file=StoredFile("uploads/x/0", "image/png", 7, "ab" * 32))
    store.keep_upload(kept)
    assert store.upload(upload.id) == kept
    store.forget_upload(upload.id)
    store.forget_upload(upload.id)
    assert store.upload(upload.id) is None


def test_old_uploads_come_oldest_first(store: Store) -> None:
    for at in (3.0, 1.0, 2.0, 4.0):
        store.add_upload(new_upload(created_at=at), NO_LIMITS)
    assert [upload.created_at for upload in store.old_uploads(4.0)] == [1.0, 2.0, 3.0]


def test_uploads_are_limited(store: Store) -> None:
    """By caller, by address and by everyone, and apart from predictions."""
    at = (time.time() // 86_400 + 3650) * 86_400  # a day that no other case counts
    by_caller = replace(NO_LIMITS, caller_per_minute=2)
    by_address = replace(NO_LIMITS, address_per_minute=3)
    added(store, owner="up", address="192.0.2.9", created_at=at, due_at=None)
    for _ in range(2):
        store.add_upload(new_upload(owner="up", address="192.0.2.9", created_at=at), by_caller)
    with pytest.raises(LimitReached) as limit:
        store.add_upload(new_upload(owner="up", created_at=at + 20), by_caller)
    assert limit.value.retry_after == pytest.approx(40)
    store.add_upload(new_upload(owner="up", created_at=at + 61), by_caller)
    store.add_upload(new_upload(address="192.0.2.9", created_at=at), by_address)
    with pytest.raises(LimitReached, match="from this address"):
        store.add_upload(new_upload(address="192.0.2.9", created_at=at), by_address)
    with pytest.raises(LimitReached, match="daily ceiling"):
        store.add_upload(new_upload(created_at=at), replace(NO_LIMITS, daily_predictions=4))
    store.add_upload(new_upload(created_at=at), replace(NO_LIMITS, daily_predictions=5))


def test_only_done_and_strange_events_are_forgotten(store: Store) -> None:
    row = sent(store)
    handled, waiting = event_for(row, received_at=5.0), event_for(row, received_at=5.0)
    nobodys = Event("msg_" + secrets.token_hex(8), "unknown", None, {}, 5.0)
    late = replace(nobodys, id="msg_" + secrets.token_hex(8), received_at=6.0)
    store.receive([handled])
    store.save(row, replace(row, due_at=None, leased=False), store.events(row))
    for event in (waiting, nobodys, late):
        store.receive([event])
    store.forget_events(6.0)
    again = [store.receive([event]) for event in (handled, waiting, nobodys, late)]
    assert again == [1, 0, 1, 0]


def test_pages(store: Store) -> None:
    owner = secrets.token_hex(8)
    same = time.time()
    rows = [added(store, owner=owner, created_at=same - n // 2) for n in range(6)]
    wanted = sorted(rows, key=lambda row: (row.created_at, row.id), reverse=True)
    got: list[Row] = []
    while page := store.page(owner, (got[-1].created_at, got[-1].id) if got else None, 4):
        got += page
    assert got == wanted


def test_overdue(store: Store) -> None:
    now = time.time()
    assert store.overdue(now) == 0
    added(store, due_at=now - 50)
    assert 49 < store.overdue(now) < 51
    store.claim(now, LEASE)
    assert store.overdue(now) == 0


def test_what_ran_lately(store: Store) -> None:
    model = secrets.token_hex(8)
    now = time.time()
    added(store, model=model, created_at=now - 100, version_ran="a" * 64, predict_seconds=1.5)
    assert (model, "a" * 64) in store.versions_ran(now - 200)
    assert (model, "a" * 64) not in store.versions_ran(now - 50)


@pytest.mark.parametrize(("age", "first"), [(200, 1), (50, 0)])
def test_of_those_who_wake_a_model_at_once_one_pays(store: Store, age: int, first: int) -> None:
    model = secrets.token_hex(8)
    now = time.time()
    added(store, model=model, created_at=now - age)

    def wake() -> bool:
        try:
            store.add(new_row(model=model, owner=secrets.token_hex(8)), NO_LIMITS, now - 100)
        except RunLately:
            return False
        return True

    assert sum(at_once(*[wake] * 8)) == first


# --- last, since it takes longest


def claim_all(threads: int) -> list[str]:
    """Claim until nothing is due, as one process with a store of its own."""
    store = open_store()

    def lane(_: int) -> list[str]:
        mine = []
        while row := store.claim(time.time(), 10**6):
            mine.append(row.id)
        return mine

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        return [row_id for ids in pool.map(lane, range(threads)) for row_id in ids]


def test_500_claimed_by_processes_and_threads_at_once(store: Store) -> None:
    rows = {added(store).id for _ in range(500)}
    with concurrent.futures.ProcessPoolExecutor(
        4, mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        taken = list(pool.map(claim_all, [2] * 4))
    counts = Counter(row_id for ids in taken for row_id in ids)
    shares = "+".join(str(len(ids)) for ids in taken)
    print(f"claims: {sum(counts.values())} of {len(rows)}, {len(counts)} unique ({shares})")
    assert counts == Counter(rows)
