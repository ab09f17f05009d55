"""The projection: any split into batches and any repetition of deliveries give the same tables."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projector.projection import Batch, project
from projector.sqlite import SqliteStore
from streams import Record
from tests.events import event

TABLES = {
    "events": "tenant_id, position",
    "event_sessions": "tenant_id, first_position",
    "quarantine": "tenant_id, position",
    "checkpoints": "tenant_id",
}


def dump(store: SqliteStore) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the live tables."""
    with store.reading() as connection:
        return {table: connection.execute(f"SELECT * FROM {table} ORDER BY {key}").fetchall() for table, key in TABLES.items()}


def record(position: int, **members: Any) -> Record:
    return Record(position, 1_767_261_600_000_000 + position, 1, event(**members).body)


@st.composite
def logs(draw: st.DrawFn) -> list[Record]:
    """A log with sessions that interleave, times out of order, names that come twice with the same or other content, and
    records that no door would have let in."""
    bodies = st.one_of(
        st.builds(
            lambda **members: event(**members).body,
            session_id=st.sampled_from(["S1", "S12", "é"]),
            event_type=st.sampled_from(["2x", "x", "view"]),
            timestamp=st.sampled_from([f"2026-01-01T10:00:0{i}Z" for i in range(5)]),
            event_id=st.one_of(st.none(), st.sampled_from(["a", "b"])),
            n=st.integers(0, 1),
        ),
        st.sampled_from([b"", b"[]", b"{}", b"\xff", b'{"session_id": "S1"}', event().body.replace(b"{}", b"[]")]),
    )
    return [Record(i, i, draw(st.sampled_from([1, 1, 1, 1, 0])), draw(bodies)) for i in range(1, draw(st.integers(1, 40)) + 1)]


def deliveries(log: list[Record], chance: random.Random) -> Iterator[Batch]:
    """Batches as projectors that crash, hang and overlap would apply them: cut anywhere, stale ones again and again, and
    in between, so that it ends, the next one in its place."""
    begins = 0
    while begins < len(log):
        for _ in range(chance.randint(0, 2)):
            if begins:
                yield cut(log, chance.randrange(begins), chance)
        batch = cut(log, begins, chance)
        yield batch
        begins = batch.through


def cut(log: list[Record], after: int, chance: random.Random) -> Batch:
    through = min(len(log), after + chance.randint(1, 12))
    return project("acme", after, log[after:through], through)


@settings(deadline=None, max_examples=60)
@given(log=logs(), seed=st.integers(0, 2**32))
def test_any_split_and_any_repetition_give_the_same_tables(log: list[Record], seed: int) -> None:
    chance = random.Random(seed)
    with SqliteStore(":memory:") as whole, SqliteStore(":memory:") as pieces:
        whole.apply([project("acme", 0, log, len(log))])

        for batch in deliveries(log, chance):
            stale = pieces.tables().checkpoint("acme").position != batch.after
            assert pieces.apply([batch]) == [not stale]

        assert dump_memory(pieces) == dump_memory(whole)


def dump_memory(store: SqliteStore) -> dict[str, list[tuple[Any, ...]]]:
    with store.transaction():
        return {
            table: store._connection.execute(f"SELECT * FROM {table} ORDER BY {key}").fetchall() for table, key in TABLES.items()
        }


@settings(deadline=None, max_examples=60)
@given(log=logs())
def test_sessions_are_the_fold_of_events(log: list[Record]) -> None:
    with SqliteStore(":memory:") as store:
        store.apply([project("acme", 0, log, len(log))])
        tables = dump_memory(store)
        with store.transaction():
            folded = store._connection.execute(
                "SELECT min(position), session_id, min(timestamp_us), max(timestamp_us), count(*), "
                "(SELECT event_type FROM events f WHERE f.session_id = e.session_id ORDER BY timestamp_us, position), "
                "(SELECT event_type FROM events l WHERE l.session_id = e.session_id ORDER BY timestamp_us DESC, position DESC) "
                "FROM events e GROUP BY session_id ORDER BY 1"
            ).fetchall()
            stored = store._connection.execute(
                "SELECT first_position, session_id, started_at_us, last_event_at_us, event_count, first_event_type, "
                "last_event_type FROM event_sessions ORDER BY 1"
            ).fetchall()
            pointed = store._connection.execute(
                "SELECT count(*) FROM events JOIN event_sessions USING (tenant_id, session_id) "
                "WHERE session_position = first_position"
            ).fetchone()

    assert stored == folded
    assert pointed == (len(tables["events"]),)


@settings(deadline=None, max_examples=60)
@given(log=logs())
def test_every_position_is_a_row_or_set_aside_or_a_late_duplicate(log: list[Record]) -> None:
    with SqliteStore(":memory:") as store:
        store.apply([project("acme", 0, log, len(log))])
        tables = dump_memory(store)

    [(_, position, _, late)] = tables["checkpoints"]
    assert len(tables["events"]) + len(tables["quarantine"]) + late == position == len(log)


def test_a_record_that_cannot_become_a_row_is_set_aside_with_its_bytes_and_the_reason(store: SqliteStore) -> None:
    log = [record(1), Record(2, 7, 1, b'{"session_id": 5}'), Record(3, 8, 0, b"what \xff ever"), record(4, n=4, session_id="S2")]

    store.apply([project("acme", 0, log, 4)])

    tables = dump(store)
    assert [row[:2] for row in tables["events"]] == [("acme", 1), ("acme", 4)]
    set_aside = [(row[1], row[4], row[6]) for row in tables["quarantine"]]
    assert set_aside == [(2, "invalid", b'{"session_id": 5}'), (3, "invalid", b"what \xff ever")]


def test_a_late_event_of_the_same_name_with_other_content_is_set_aside_as_a_conflict(store: SqliteStore) -> None:
    log = [record(1, event_id="a", n=1), record(2, event_id="a", n=2, session_id="new"), record(3, session_id="new")]

    store.apply([project("acme", 0, log, 3)])

    tables = dump(store)
    assert [row[1] for row in tables["events"]] == [1, 3]
    assert [(row[1], row[4]) for row in tables["quarantine"]] == [(2, "conflict")]
    assert [row[:3] for row in tables["event_sessions"]] == [("acme", 1, "S1"), ("acme", 3, "new")]


def test_the_first_and_last_type_of_a_session_go_by_event_time_then_position(store: SqliteStore) -> None:
    log = [
        record(1, event_type="second", timestamp="2026-01-01T10:00:02Z"),
        record(2, event_type="first", timestamp="2026-01-01T10:00:01Z"),
        record(3, event_type="tied first", timestamp="2026-01-01T11:00:01+01:00"),
        record(4, event_type="tied last", timestamp="2026-01-01T10:00:02.000Z"),
    ]

    for i in range(4):
        store.apply([project("acme", i, log[i : i + 1], i + 1)])

    with store.reading() as connection:
        row = connection.execute(
            "SELECT started_at, last_event_at, event_count, first_event_type, last_event_type FROM event_sessions"
        ).fetchone()
    assert row == ("2026-01-01T10:00:01.000000Z", "2026-01-01T10:00:02.000000Z", 4, "first", "tied last")


@pytest.mark.parametrize(
    ("timestamp", "utc"),
    [
        ("2026-01-01T10:00:00Z", "2026-01-01T10:00:00.000000Z"),
        ("2026-01-01T10:00:00.123456+05:30", "2026-01-01T04:30:00.123456Z"),
        ("1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_a_timestamp_is_kept_as_sent_and_as_utc(store: SqliteStore, timestamp: str, utc: str) -> None:
    store.apply([project("acme", 0, [record(1, timestamp=timestamp)], 1)])

    with store.reading() as connection:
        assert connection.execute("SELECT timestamp, timestamp_utc FROM events").fetchone() == (timestamp, utc)
