"""The state machine: any order, repetition and loss of messages ends in the same state."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.prediction import Row, Running, Succeeded, present
from inference.state import (
    Remote,
    Step,
    cancel_unsent,
    fail,
    next_step,
    observe,
    parse_remote,
    row_id_of,
)

NOW = 1_000.0
ROW = Row(
    id="a" * 32,
    owner="me",
    address="::1",
    model="m",
    ref="o/m",
    input={},
    created_at=NOW,
    due_at=NOW,
)
SENT = replace(ROW, sent_at=NOW)


def remote(status: str, **more: object) -> Remote:
    return parse_remote({"id": "r1", "status": status, **more})


ENDS = [
    remote("succeeded", output=["https://replicate.delivery/x.png"]),
    remote("succeeded", output="text"),
    remote("failed", error="no"),
    remote("canceled"),
    remote("aborted"),
]
STORY = [remote("starting"), remote("processing")]


@given(st.sampled_from(ENDS), st.data())
def test_every_order_ends_the_same(end: Remote, data: st.DataObject) -> None:
    messages = data.draw(st.lists(st.sampled_from([*STORY, end]), max_size=12))
    row = SENT
    for message in [*messages, end]:
        row = observe(row, message, NOW)
    expected = observe(SENT, end, NOW)
    assert row == expected
    assert row.over


@given(st.sampled_from(ENDS), st.sampled_from([*ENDS, *STORY]))
def test_a_terminal_status_never_changes(first: Remote, second: Remote) -> None:
    over = observe(SENT, first, NOW)
    after = observe(over, second, NOW + 5)
    assert (after.status, after.storage, after.completed_at) == (
        over.status,
        over.storage,
        over.completed_at,
    )
    assert fail(over, "late", NOW) == over


def test_another_predictions_message_changes_nothing() -> None:
    mine = replace(SENT, replicate_id="other")
    assert observe(mine, ENDS[0], NOW) == mine


@pytest.mark.parametrize(
    ("row", "step"),
    [
        (ROW, Step.CREATE),
        (replace(ROW, ask_at=NOW + 1), Step.REST),
        (SENT, Step.ADOPT),
        (replace(SENT, replicate_id="r1", status="starting"), Step.ASK),
        (replace(SENT, replicate_id="r1", status="starting", ask_at=NOW + 1), Step.REST),
        (replace(SENT, replicate_id="r1", status="processing", cancel_requested=True), Step.CANCEL),
        (replace(SENT, cancel_requested=True), Step.ADOPT),
        (replace(ROW, cancel_requested=True), Step.CANCEL),
        (replace(SENT, status="succeeded", storage="pending"), Step.STORE),
        (replace(SENT, status="succeeded", storage="stored"), Step.REST),
        (replace(SENT, status="canceled", deleted_at=NOW), Step.ERASE),
        (replace(SENT, status="canceled", deleted_at=NOW, erased=True), Step.REST),
    ],
)
def test_what_comes_next(row: Row, step: Step) -> None:
    assert next_step(row, NOW) is step


def test_a_cancel_waits_for_nothing_once_the_prediction_is_found() -> None:
    lost = replace(SENT, cancel_requested=True, ask_at=NOW + 60, failures=3)
    assert next_step(lost, NOW) is Step.REST
    found = observe(lost, STORY[0], NOW)
    assert (found.failures, next_step(found, NOW)) == (0, Step.CANCEL)


def test_what_was_never_sent_is_canceled_here() -> None:
    row = cancel_unsent(replace(ROW, cancel_requested=True), NOW)
    assert (row.status, row.completed_at, next_step(row, NOW)) == ("canceled", NOW, Step.REST)


def test_only_a_stored_success_has_an_output() -> None:
    row = observe(SENT, ENDS[1], NOW)
    assert isinstance(present(row), Running)
    stored = present(replace(row, storage="stored", output="text"))
    assert isinstance(stored, Succeeded)
    assert stored.output == "text"
    for end in ENDS[2:]:
        assert not isinstance(present(replace(row, status=end.status)), Succeeded)


def test_the_webhook_url_names_the_row() -> None:
    url = "https://x.test/api/webhooks/replicate?prediction="
    assert row_id_of(f"{url}{'a' * 32}") == "a" * 32
    assert row_id_of(f"{url}%00") is None
    assert row_id_of("https://x.test/") is None
    assert row_id_of(None) is None


@pytest.mark.parametrize("data", [None, [], {}, {"id": 1}, {"id": "x", "status": "cancelled"}])
def test_what_is_no_prediction_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match="prediction"):
        parse_remote(data)
