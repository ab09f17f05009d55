"""An erasure removes a subject's records and keeps later copies out."""

import hashlib
import json

import pytest

from projector.projection import project, row_of
from projector.store import LIVE, PREVIOUS, SHADOW, SetName, Store, stage_rows
from projector.store.structs import Chunk
from streams import Record
from tests.support.records import record
from tests.support.stores import apply, contents, positions

SALT = "5a" * 16


def erase(position: int, erased: list[Record], *others: int) -> Record:
    """A control record that erases records, and positions without a name."""
    names = []
    for entry in erased:
        row = row_of("acme", entry)
        names.append(hashlib.sha1(f"{SALT}{row.event_hash}{row.hash_parts}".encode()).hexdigest())
    body = {
        "action": "erase",
        "salt": SALT,
        "subject": "ab" * 32,
        "through": position - 1,
        "positions": [*(entry.position for entry in erased), *others],
        "names": [*names, *([""] * len(others))],
    }
    return Record(position, position, 2, json.dumps(body).encode())


LOG = [
    record(1, session_id="S1", n=1),
    record(2, session_id="S1", n=2, timestamp="2026-01-01T11:00:00Z", event_type="view"),
    record(3, session_id="S2", n=3),
    Record(4, 4, 1, b"no event"),
    record(5, session_id="S1", n=1),  # a late duplicate
]


def test_rows_and_quarantined_records_are_removed_and_counted(tables: Store) -> None:
    apply(tables, [*LOG, erase(6, [LOG[1], LOG[2]], 4, 5)])

    assert positions(tables) == [1]
    assert positions(tables, "quarantine") == []
    assert [(row["position"], row["reason"]) for row in contents(tables)["tombstones"]] == [
        (position, "erased") for position in (2, 3, 4, 5)
    ]
    checkpoint = tables.checkpoint("acme")
    assert (checkpoint.late_duplicates, checkpoint.dropped, checkpoint.erased) == (0, 1, 4)


def test_sessions_are_derived_again_from_the_remaining_rows(tables: Store) -> None:
    apply(tables, [*LOG, erase(6, [LOG[0], LOG[2]])])

    [session] = contents(tables)["event_sessions"]
    assert (session["first_position"], session["session_id"], session["event_count"]) == (2, "S1", 1)
    assert session["first_event_type"] == session["last_event_type"] == "view"
    assert [event["session_position"] for event in contents(tables)["events"]] == [2]


def test_a_repeated_erasure_changes_nothing(tables: Store) -> None:
    apply(tables, [*LOG, erase(6, [LOG[1]])])
    before = contents(tables)

    apply(tables, [erase(7, [LOG[1]])], after=6)

    after = contents(tables)
    assert {table: rows for table, rows in after.items() if table != "checkpoints"} == {
        table: rows for table, rows in before.items() if table != "checkpoints"
    }
    assert (tables.checkpoint("acme").erased, tables.checkpoint("acme").dropped) == (1, 2)


@pytest.mark.parametrize("in_one_batch", [True, False])
def test_a_later_event_with_the_identity_of_an_erased_event_stays_out(tables: Store, in_one_batch: bool) -> None:
    erasure = erase(6, [LOG[1]])
    again = Record(7, 7, 1, LOG[1].body)

    if in_one_batch:
        apply(tables, [*LOG, erasure, again])
    else:
        apply(tables, [*LOG, erasure])
        apply(tables, [again], after=6)

    assert positions(tables) == [1, 3]
    assert tables.checkpoint("acme").erased == 2


def test_a_log_that_was_already_rewritten_gives_the_same_tables(tables: Store, other_tables: Store) -> None:
    erasure = erase(6, [LOG[1], LOG[2]])
    rewritten = [
        Record(entry.position, entry.received_at_us, 2, b'{"action":"erased"}') if entry.position in (2, 3) else entry
        for entry in LOG
    ]

    apply(tables, [*LOG, erasure])
    apply(other_tables, [*rewritten, erasure])

    assert contents(other_tables) == contents(tables)


def test_staged_rows_are_erased_like_rows_in_memory(tables: Store, other_tables: Store, tmp_path: object) -> None:
    log = [*LOG, erase(6, [LOG[1]]), Record(7, 7, 1, LOG[1].body), record(8, session_id="S3", n=8)]
    apply(tables, log)

    other_tables.write(LIVE, stage_rows(f"{tmp_path}/chunk", [project("acme", 0, log, 8)]))

    assert contents(other_tables) == contents(tables)


@pytest.mark.parametrize("when", ["before the swap", "after the swap"])
def test_the_previous_tables_lose_what_the_live_tables_erase(tables: Store, when: str) -> None:
    erasure = erase(6, [LOG[1], LOG[2]])
    apply(tables, LOG)
    tables.create_shadow()
    tables.write(SHADOW, Chunk([project("acme", 0, LOG, 5)]))
    if when == "before the swap":
        tables.write(SHADOW, Chunk([project("acme", 5, [erasure], 6)]))
    tables.index_shadow()
    swap(tables, SHADOW)
    if when == "after the swap":
        apply(tables, [erasure], after=5)
    assert positions(tables) == [1]

    swap(tables, PREVIOUS)

    assert positions(tables) == [1]
    assert tables.checkpoint("acme").position == 5


def swap(store: Store, name: SetName) -> None:
    """Make a set the live set."""
    with store.swapping(name) as swapping:
        swapping.promote()
