"""The projection: any split into batches and any repetition of deliveries give the same tables."""

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projector.projection import Batch, project
from projector.store.sqlite import SqliteStore
from streams import Record
from tests.support.records import control_record, logs, record
from tests.support.tables import dump, dump_memory


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
def test_every_position_is_a_row_or_set_aside_or_a_late_duplicate_or_dropped(log: list[Record]) -> None:
    with SqliteStore(":memory:") as store:
        store.apply([project("acme", 0, log, len(log))])
        tables = dump_memory(store)

    [(_, position, _, late, dropped, erased)] = tables["checkpoints"]
    assert len(tables["events"]) + len(tables["quarantine"]) + late + dropped == position == len(log)
    assert erased == 0


@settings(deadline=None, max_examples=60)
@given(log=logs())
def test_what_is_in_quarantine_is_what_no_later_note_names(log: list[Record]) -> None:
    """By a second fold: that of the log without its notes, from which they are then taken away."""
    named = [drop.control_record.positions for drop in project("acme", 0, log, len(log)).control_records]
    without = [Record(one.position, one.received_at_us, 0, b"") if one.version == 2 else one for one in log]
    with SqliteStore(":memory:") as store, SqliteStore(":memory:") as bare:
        store.apply([project("acme", 0, log, len(log))])
        bare.apply([project("acme", 0, without, len(log))])
        kept, all_of_them = (dump_memory(one)["quarantine"] for one in (store, bare))
        rows, bare_rows = (dump_memory(one)["events"] for one in (store, bare))

    notes_taken = {drop.position for drop in project("acme", 0, log, len(log)).control_records}
    tombstones = {position for positions in named for position in positions} | notes_taken
    assert [row[1] for row in kept] == [row[1] for row in all_of_them if row[1] not in tombstones]
    assert rows == bare_rows


@pytest.mark.parametrize(
    "body",
    [
        b'{"action":"burn","positions":[1]}',
        b'{"positions":[1]}',
        b'{"action":"drop"}',
        b'{"action":"drop","positions":[]}',
        b'{"action":"drop","positions":[0]}',
        b'{"action":"drop","positions":[2]}',
        b'{"action":"drop","positions":[1,99999999999999999999999]}',
        b'{"action":"drop","positions":["1"]}',
        b'{"action":"drop","positions":[1],"and":"more"}',
        b'{"action":"drop","positions":' + str([1] * 501).encode() + b"}",
        b"\xff",
        b"",
    ],
    ids=lambda body: body[:40].decode(errors="replace"),
)
def test_a_note_that_is_none_is_set_aside_and_does_nothing(store: SqliteStore, body: bytes) -> None:
    store.apply([project("acme", 0, [Record(1, 1, 1, b"no event"), Record(2, 2, 2, body)], 2)])

    tables = dump(store)
    assert [(row[1], row[4], row[6]) for row in tables["quarantine"]] == [(1, "invalid", b"no event"), (2, "invalid", body)]
    assert tables["checkpoints"][0][4:] == (0, 0)


def test_a_note_drops_what_is_in_quarantine_and_counts_it_and_itself(store: SqliteStore) -> None:
    log = [
        Record(1, 1, 1, b"no event"),
        record(2),
        Record(3, 3, 1, b"nor this"),
        control_record(4, 1, 2),
        control_record(5, 1, 3),
    ]

    store.apply([project("acme", 0, log, 5)])

    tables = dump(store)
    assert [row[1] for row in tables["events"]] == [2]
    assert tables["quarantine"] == []
    assert tables["checkpoints"][0][4:] == (4, 0)


def test_a_record_that_cannot_become_a_row_is_set_aside_with_its_bytes_and_the_reason(store: SqliteStore) -> None:
    log = [record(1), Record(2, 7, 1, b'{"session_id": 5}'), Record(3, 8, 0, b"what \xff ever"), record(4, n=4, session_id="S2")]

    store.apply([project("acme", 0, log, 4)])

    tables = dump(store)
    assert [row[:2] for row in tables["events"]] == [("acme", 1), ("acme", 4)]
    make = [(row[1], row[4], row[6]) for row in tables["quarantine"]]
    assert make == [(2, "invalid", b'{"session_id": 5}'), (3, "invalid", b"what \xff ever")]


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
