"""Any batches and any repeated deliveries give the same tables."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projector.projection import Batch, project
from projector.store import LIVE, OtherProjection, Store, stage_rows
from projector.store.structs import Chunk
from streams import Record
from tests.support.engines import Engine, Open
from tests.support.records import control_record, logs, record
from tests.support.stores import apply, batches_of, contents, positions

SESSION_COLUMNS = (
    "first_position", "session_id", "started_at_us", "last_event_at_us", "event_count", "first_event_type", "last_event_type",
)  # fmt: skip


def deliveries(log: list[Record], chance: random.Random, tenant: str) -> Iterator[Batch]:
    """The batches of projectors that crash, hang and overlap.

    Batches are cut anywhere, stale batches are repeated, and the next batch always follows, so that the log is applied.
    """
    after = 0
    while after < len(log):
        for _ in range(chance.randint(0, 2)):
            if after:
                yield cut(log, chance.randrange(after), chance, tenant)
        batch = cut(log, after, chance, tenant)
        yield batch
        after = batch.through


def cut(log: list[Record], after: int, chance: random.Random, tenant: str) -> Batch:
    through = min(len(log), after + chance.randint(1, 12))
    return project(tenant, after, log[after:through], through)


def test_any_split_and_any_repetition_give_the_same_tables(
    tables: Store, other_tables: Store, new_tenant: Callable[[], str]
) -> None:
    @settings(deadline=None, max_examples=60)
    @given(log=logs(), seed=st.integers(0, 2**32))
    def holds(log: list[Record], seed: int) -> None:
        tenant, chance = new_tenant(), random.Random(seed)
        tables.apply([project(tenant, 0, log, len(log))])

        for batch in deliveries(log, chance, tenant):
            stale = other_tables.checkpoint(tenant).position != batch.after
            assert other_tables.apply([batch]) == [not stale]

        assert contents(other_tables, tenant) == contents(tables, tenant)

    holds()


def test_any_split_into_staged_chunks_gives_the_same_tables(
    tables: Store, other_tables: Store, new_tenant: Callable[[], str], tmp_path: Path
) -> None:
    @settings(deadline=None, max_examples=60)
    @given(log=logs(), batch=st.integers(1, 12), chunk=st.integers(1, 4))
    def holds(log: list[Record], batch: int, chunk: int) -> None:
        tenant = new_tenant()
        tables.apply([project(tenant, 0, log, len(log))])

        batches = batches_of(log, batch, tenant)
        for i in range(0, len(batches), chunk):
            other_tables.write(LIVE, stage_rows(str(tmp_path / f"{tenant}-{i}"), batches[i : i + chunk]))

        assert contents(other_tables, tenant) == contents(tables, tenant)

    holds()


def test_sessions_are_the_fold_of_events(tables: Store, new_tenant: Callable[[], str]) -> None:
    @settings(deadline=None, max_examples=60)
    @given(log=logs())
    def holds(log: list[Record]) -> None:
        tenant = new_tenant()
        tables.apply([project(tenant, 0, log, len(log))])
        rows = contents(tables, tenant)

        sessions: dict[str, list[dict[str, Any]]] = {}
        for event in rows["events"]:
            sessions.setdefault(event["session_id"], []).append(event)
        folded = []
        for session_id, events in sessions.items():
            in_time = sorted(events, key=lambda event: (event["timestamp_us"], event["position"]))
            ends = in_time[0]["timestamp_us"], in_time[-1]["timestamp_us"]
            types = in_time[0]["event_type"], in_time[-1]["event_type"]
            folded.append((events[0]["position"], session_id, *ends, len(events), *types))
            assert {event["session_position"] for event in events} == {events[0]["position"]}
        assert [tuple(session[column] for column in SESSION_COLUMNS) for session in rows["event_sessions"]] == folded

    holds()


def test_every_position_is_in_one_table_or_counted(tables: Store, new_tenant: Callable[[], str]) -> None:
    @settings(deadline=None, max_examples=60)
    @given(log=logs())
    def holds(log: list[Record]) -> None:
        tenant = new_tenant()
        tables.apply([project(tenant, 0, log, len(log))])

        rows, checkpoint = contents(tables, tenant), tables.checkpoint(tenant)
        in_tables = len(rows["events"]) + len(rows["quarantine"])
        assert in_tables + checkpoint.late_duplicates + checkpoint.dropped == checkpoint.position == len(log)
        assert checkpoint.erased == 0

    holds()


def test_quarantine_holds_the_records_that_no_later_control_record_names(
    tables: Store, other_tables: Store, new_tenant: Callable[[], str]
) -> None:
    """Compares with the fold of the log without its control records."""

    @settings(deadline=None, max_examples=60)
    @given(log=logs())
    def holds(log: list[Record]) -> None:
        tenant = new_tenant()
        control_records = project(tenant, 0, log, len(log)).control_records
        log_without_control_records = [
            Record(entry.position, entry.received_at_us, 0, b"") if entry.version == 2 else entry for entry in log
        ]
        tables.apply([project(tenant, 0, log, len(log))])
        other_tables.apply([project(tenant, 0, log_without_control_records, len(log))])

        removed = {position for entry in control_records for position in (entry.position, *entry.control_record.positions)}
        assert positions(tables, "quarantine", tenant) == [
            position for position in positions(other_tables, "quarantine", tenant) if position not in removed
        ]
        assert contents(tables, tenant)["events"] == contents(other_tables, tenant)["events"]

    holds()


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
def test_a_malformed_control_record_goes_to_quarantine_and_does_nothing(tables: Store, body: bytes) -> None:
    apply(tables, [Record(1, 1, 1, b"no event"), Record(2, 2, 2, body)])

    rows = contents(tables)["quarantine"]
    assert [(row["position"], row["reason"], row["body"]) for row in rows] == [
        (1, "invalid", b"no event"),
        (2, "invalid", body),
    ]
    assert (tables.checkpoint("acme").dropped, tables.checkpoint("acme").erased) == (0, 0)


def test_a_drop_removes_records_from_quarantine_and_counts_them_and_itself(tables: Store) -> None:
    bodies = [b"no event", b"nor this"]
    log = [Record(1, 1, 1, bodies[0]), record(2), Record(3, 3, 1, bodies[1]), control_record(4, 1, 2), control_record(5, 1, 3)]

    apply(tables, log)

    assert positions(tables) == [2]
    assert positions(tables, "quarantine") == []
    assert (tables.checkpoint("acme").dropped, tables.checkpoint("acme").erased) == (4, 0)


def test_a_record_that_cannot_become_a_row_is_in_quarantine_with_its_bytes_and_the_reason(tables: Store) -> None:
    log = [record(1), Record(2, 7, 1, b'{"session_id": 5}'), Record(3, 8, 0, b"what \xff ever"), record(4, n=4, session_id="S2")]

    apply(tables, log)

    assert positions(tables) == [1, 4]
    assert [(row["position"], row["reason"], row["body"]) for row in contents(tables)["quarantine"]] == [
        (2, "invalid", b'{"session_id": 5}'),
        (3, "invalid", b"what \xff ever"),
    ]


def test_a_later_event_with_the_same_identity_and_other_content_is_a_conflict(tables: Store) -> None:
    apply(tables, [record(1, event_id="a", n=1), record(2, event_id="a", n=2, session_id="new"), record(3, session_id="new")])

    assert positions(tables) == [1, 3]
    assert [(row["position"], row["reason"]) for row in contents(tables)["quarantine"]] == [(2, "conflict")]
    sessions = contents(tables)["event_sessions"]
    assert [(row["first_position"], row["session_id"]) for row in sessions] == [(1, "S1"), (3, "new")]


def test_a_repeated_event_is_a_late_duplicate(tables: Store) -> None:
    apply(tables, [record(1, event_id="a", n=1), record(2, event_id="a", n=1)])

    assert positions(tables) == [1]
    assert tables.checkpoint("acme").late_duplicates == 1


def test_the_first_and_last_type_of_a_session_go_by_event_time_then_position(tables: Store) -> None:
    log = [
        record(1, event_type="second", timestamp="2026-01-01T10:00:02Z"),
        record(2, event_type="first", timestamp="2026-01-01T10:00:01Z"),
        record(3, event_type="tied first", timestamp="2026-01-01T11:00:01+01:00"),
        record(4, event_type="tied last", timestamp="2026-01-01T10:00:02.000Z"),
    ]

    for batch in batches_of(log, 1):
        tables.apply([batch])

    [session] = contents(tables)["event_sessions"]
    assert (session["started_at"], session["last_event_at"]) == ("2026-01-01T10:00:01.000000Z", "2026-01-01T10:00:02.000000Z")
    assert (session["event_count"], session["first_event_type"], session["last_event_type"]) == (4, "first", "tied last")


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
def test_a_timestamp_is_kept_as_sent_and_as_utc(tables: Store, timestamp: str, utc: str) -> None:
    apply(tables, [record(1, timestamp=timestamp)])

    [event] = contents(tables)["events"]
    assert (event["timestamp"], event["timestamp_utc"]) == (timestamp, utc)


# -- checkpoints -------------------------------------------------------------------------------------------------------


def test_a_batch_that_does_not_begin_at_the_checkpoint_writes_nothing(tables: Store) -> None:
    apply(tables, [record(1)])
    before = contents(tables)

    again = project("acme", 0, [record(1), record(2, n=2, session_id="S2")], 2)
    gap = project("acme", 5, [record(6, n=6)], 6)

    assert tables.apply([again, gap]) == [False, False]
    assert contents(tables) == before


def test_a_batch_that_is_not_written_does_not_delay_other_tenants(tables: Store) -> None:
    apply(tables, [record(1)])

    stale, fresh = project("acme", 0, [record(1)], 1), project("beta", 0, [record(1)], 1)

    assert tables.apply([stale, fresh]) == [False, True]
    assert {tenant: checkpoint.position for tenant, checkpoint in tables.checkpoints().items()} == {"acme": 1, "beta": 1}


def test_tables_of_another_projection_version_are_not_changed(tables: Store, engine: Engine) -> None:
    engine.make_old(tables, 99)

    with pytest.raises(OtherProjection, match="99"):
        tables.apply([project("acme", 0, [record(1)], 1)])

    assert positions(tables) == []


def test_rows_are_kept_when_the_database_is_opened_again(open_database: Open) -> None:
    with open_database() as store:
        apply(store, [record(1)])
        tables_id = store.tables_id

    with open_database() as store, open_database("other") as other:
        assert positions(store) == [1]
        assert store.tables_id == tables_id != other.tables_id


# -- chunks ------------------------------------------------------------------------------------------------------------


def test_a_session_that_began_before_a_chunk_keeps_its_first_position(tables: Store, tmp_path: Path) -> None:
    log = [record(i, session_id=f"S{i % 3}", event_id=f"e{i}") for i in range(1, 31)]

    for i, batch in enumerate(batches_of(log, 10)):
        tables.write(LIVE, stage_rows(str(tmp_path / str(i)), [batch]))

    pointers = Counter((event["session_id"], event["session_position"]) for event in contents(tables)["events"])
    assert pointers == {("S1", 1): 10, ("S2", 2): 10, ("S0", 3): 10}


def test_a_chunk_that_was_written_leaves_no_file(tables: Store, tmp_path: Path) -> None:
    chunk = stage_rows(str(tmp_path / "1"), batches_of([record(1)], 1))
    assert (tmp_path / "1").exists()

    tables.write(LIVE, chunk)

    assert not (tmp_path / "1").exists()


def test_a_chunk_without_a_file_is_written_from_its_batches(tables: Store) -> None:
    log = [record(i, event_id=f"e{i}") for i in range(1, 5)]

    tables.write(LIVE, Chunk(batches_of(log, 2)))

    assert positions(tables) == [1, 2, 3, 4]
