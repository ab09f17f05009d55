"""Reads give pages, receipts, counts and snapshots of one moment."""

import json
from typing import Any

import pytest

from projector.projection import project, row_of
from projector.store import Filters, Store
from streams import Record
from tests.support.records import record
from tests.support.stores import apply

LOG = [
    record(1, session_id="S1", event_type="view", timestamp="2026-01-01T10:00:00Z", event_id="e1", user_id="u1"),
    record(2, session_id="S2", event_type="click", timestamp="2026-01-01T09:00:00Z", event_id="e2"),
    record(3, session_id="S1", event_type="click", timestamp="2026-01-01T11:00:00Z", event_id="e3"),
    Record(4, 1_767_261_600_000_004, 1, b"no event"),
    record(5, session_id="S1", event_type="click", timestamp="2026-01-01T11:00:00Z", event_id="e3"),
]


@pytest.fixture
def filled(tables: Store) -> Store:
    """The log of a tenant, and an event of another tenant."""
    apply(tables, LOG)
    apply(tables, [record(1, session_id="S1", event_id="of beta")], "beta")
    return tables


def events(store: Store, after: tuple[int, int] | None = None, limit: int = 10, **filters: Any) -> list[int]:
    """The positions of a page of events."""
    return [row["position"] for row in store.queries.events("acme", Filters(**filters), after, limit)]


def sessions(store: Store, **filters: Any) -> list[str]:
    """The names of a page of sessions."""
    return [row["session_id"] for row in store.queries.sessions("acme", Filters(**filters), None, 10)]


def test_events_are_filtered_and_newest_first(filled: Store) -> None:
    assert events(filled) == [3, 1, 2]
    assert events(filled, session_id="S1") == [3, 1]
    assert events(filled, event_type="click") == [3, 2]
    assert events(filled, since_us=time_us("10:00:00"), until_us=time_us("11:00:00")) == [1]
    assert events(filled, session_id="unknown") == []


def test_the_next_page_of_events_begins_after_the_last_event(filled: Store) -> None:
    [first] = filled.queries.events("acme", Filters(), None, 1)

    assert events(filled, (first["timestamp_us"], first["position"])) == [1, 2]


def test_an_event_is_read_as_it_was_sent(filled: Store) -> None:
    [row] = filled.queries.events("acme", Filters(since_us=time_us("10:00:00"), until_us=time_us("10:00:01")), None, 10)

    assert (row["event_id"], row["session"], row["timestamp_utc"]) == ("e1", "S1", "2026-01-01T10:00:00.000000Z")
    assert json.loads(bytes(row["properties"])) == {"user_id": "u1"}


def test_sessions_are_filtered_and_ordered_by_their_newest_event(filled: Store) -> None:
    assert sessions(filled) == ["S1", "S2"]
    assert sessions(filled, user_id="u1") == ["S1"]
    assert sessions(filled, event_type="view") == ["S1"]
    assert sessions(filled, session_id="S2") == ["S2"]


def test_a_session_is_read_with_a_page_of_its_events(filled: Store) -> None:
    session, rows = filled.queries.session("acme", Filters(session_id="S1"), None, 1)

    assert session is not None and session["event_count"] == 2
    assert [row["position"] for row in rows] == [3]
    assert filled.queries.session("acme", Filters(session_id="unknown"), None, 1) == (None, [])


@pytest.mark.parametrize(
    ("position", "status"), [(1, "projected"), (4, "quarantined"), (5, "late_duplicate"), (6, "queued"), (7, "queued")]
)
def test_a_receipt_has_the_status_of_its_position(filled: Store, position: int, status: str) -> None:
    receipt = filled.queries.receipt("acme", position)

    assert (receipt["status"], receipt["position"]) == (status, position)
    assert (receipt["event_hash"] is not None) == (status == "projected")


def test_an_event_is_found_by_its_identity(filled: Store) -> None:
    known = filled.queries.known_event(row_of("acme", LOG[4]))
    nameless = filled.queries.known_event(row_of("acme", record(9, session_id="S1", timestamp="2026-01-01T10:00:00Z")))

    assert known is not None and known.position == 3
    assert nameless is None


def test_counts_are_of_every_tenant(filled: Store) -> None:
    counts = filled.queries.counts(["acme", "unknown"])

    assert {tenant: checkpoint.position for tenant, checkpoint in counts.checkpoints.items()} == {"acme": 5, "beta": 1}
    assert (counts.quarantined, counts.deleted) == ({"acme": 1}, [])
    assert filled.queries.session_counts() == {"acme": 2, "beta": 1}
    assert filled.queries.session_counts(["beta"]) == {"beta": 1}


def test_a_snapshot_does_not_change_while_batches_are_applied(filled: Store) -> None:
    with filled.snapshot() as before:
        assert before.checkpoint("acme").position == 5
        filled.apply([project("acme", 5, [record(6, event_id="e6")], 6)])

        assert before.checkpoints()["acme"].position == 5
        assert before.count("events", "acme") == 3
        assert [row["position"] for row in before.rows("events", "acme", begin=2)] == [2, 3]
    with filled.snapshot() as after:
        assert after.count("events", "acme") == 4


def test_rows_from_a_position_include_every_session_with_an_event_there(filled: Store) -> None:
    with filled.snapshot() as live:
        assert [row["session_id"] for row in live.rows("event_sessions", "acme", begin=3)] == ["S1"]
        row = live.row("event_sessions", "acme", 2)
        assert row is not None and row["session_id"] == "S2"
        assert live.row("event_sessions", "acme", 3) is None


def test_the_first_position_received_at_a_time_is_found(filled: Store) -> None:
    with filled.snapshot() as live:
        assert live.first_received("acme", 0) == 1
        assert live.first_received("acme", 1_767_261_600_000_003) == 3
        assert live.first_received("acme", 2**60) is None


def time_us(time: str) -> int:
    """A time of 2026-01-01, in microseconds."""
    hours, minutes, seconds = map(int, time.split(":"))
    return 1_767_225_600_000_000 + ((hours * 60 + minutes) * 60 + seconds) * 1_000_000
