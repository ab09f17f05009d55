"""A message that is no event becomes a dead letter, once.

It is in quarantine with its bytes, also after a rebuild.
"""

import io

import pytest

from projector.live.worker import Worker
from projector.rebuild.rebuild import rebuild
from projector.store.sqlite import SqliteStore
from streams import DEAD_LETTER_VERSION, Event, Log, Record, Rejected, dead_letter, make_event, parse_event
from streams.archive.segments import pack, unpack
from streams.dedup_keys import dedup_keys_of
from tests.support.events import body

LIMIT = 1_000


def dead_letter_of(raw: bytes = b'{"type": "track"}', **changes: object) -> Event:
    members = {"format": "segment", "reason": "invalid", "detail": "event: is missing", "limit_bytes": LIMIT} | changes
    return dead_letter.make(raw, **members)  # type: ignore[arg-type]


async def test_a_dead_letter_is_in_quarantine_and_its_neighbours_are_events(log: Log, store: SqliteStore, worker: Worker) -> None:
    await log.append("acme", [parse_event(body()), dead_letter_of(), parse_event(body(session_id="S2"))])

    await worker.run_to_end()

    tables = store.tables()
    [row] = tables.rows("quarantine", "acme")
    assert (row["position"], row["reason"], row["detail"]) == (2, "invalid", "event: is missing")
    assert row["body"] == b'{"type": "track"}'
    assert [row["position"] for row in tables.rows("events", "acme")] == [1, 3]


async def test_the_same_bytes_are_a_duplicate_of_a_dead_letter(log: Log) -> None:
    [first] = await log.append("acme", [dead_letter_of()])
    again, other = await log.append("acme", [dead_letter_of(detail="in other words"), dead_letter_of(b"other")])

    assert (first.status, again.status, again.position, other.status) == ("accepted", "duplicate", 1, "accepted")


async def test_bytes_that_differ_in_each_resend_are_not_in_its_identity(log: Log) -> None:
    await log.append("acme", [dead_letter_of(b'{"stm": 1}', named_by=b"{}")])
    [again] = await log.append("acme", [dead_letter_of(b'{"stm": 2}', named_by=b"{}")])

    assert again.status == "duplicate"


async def test_a_rebuild_keeps_a_dead_letter_in_quarantine(log: Log, store: SqliteStore, worker: Worker) -> None:
    await log.append("acme", [dead_letter_of(b"\xff\x00")])
    await worker.run_to_end()
    before = list(store.tables().rows("quarantine", "acme"))

    await rebuild(log, store)

    assert list(store.tables().rows("quarantine", "acme")) == before
    assert before[0]["body"] == b"\xff\x00"


def test_a_large_dead_letter_keeps_its_beginning_and_its_size() -> None:
    event = dead_letter_of(b"x" * 5_000)

    dead = dead_letter.parse(Record(1, 0, DEAD_LETTER_VERSION, event.body))

    assert (len(dead.raw), dead.original_bytes) == (LIMIT, 5_000)


def test_the_dedup_key_of_a_dead_letter_follows_from_its_record() -> None:
    event = dead_letter_of()
    record = Record(1, 1_000_000, DEAD_LETTER_VERSION, event.body)

    [key], [position, _, hash_parts, _] = dedup_keys_of("acme", [record], 60_000_000, 1_000_000)

    assert (position, hash_parts) == (1, "dead_letter")
    assert key.startswith("{") and "acme" in key


def test_a_record_that_is_no_dead_letter_is_refused() -> None:
    with pytest.raises(Rejected):
        dead_letter.parse(Record(1, 0, DEAD_LETTER_VERSION, b'{"name": "x"}'))


# -- clock correction --------------------------------------------------------------------------------------------------


def corrected(clock_us: int, **changes: object) -> Event:
    members = {
        "session_id": "",
        "event_type": "click",
        "timestamp": "2026-01-01T10:00:00Z",
        "event_id": "m1",
        "properties": {"n": 1},
    }
    return make_event(**(members | changes), clock_us=clock_us)  # type: ignore[arg-type]


async def test_a_resend_is_a_duplicate_with_any_clock_correction(log: Log, store: SqliteStore, worker: Worker) -> None:
    first, again, other = await log.append(
        "acme", [corrected(5_000_000), corrected(-7_000_000), corrected(0, properties={"n": 2})]
    )
    await worker.run_to_end()

    [row] = store.tables().rows("events", "acme")
    assert (first.status, again.status, other.status) == ("accepted", "duplicate", "conflict")
    assert (row["timestamp"], row["timestamp_utc"]) == ("2026-01-01T10:00:00Z", "2026-01-01T10:00:05.000000Z")


def test_an_archive_returns_a_corrected_event_unchanged() -> None:
    records = [Record(1, 5, 1, corrected(5).body), Record(2, 6, 1, corrected(0).body), Record(3, 7, 3, dead_letter_of().body)]

    assert [record for page in unpack(io.BytesIO(pack(records)), 0) for record in page] == records


def test_an_event_without_an_id_gets_no_clock_correction() -> None:
    assert corrected(5, event_id=None).clock_us == 0


@pytest.mark.parametrize(
    "members",
    [
        {"timestamp": "9999-12-31T23:59:59Z"},
        {"event_type": ""},
        {"event_type": None},
        {"event_id": ""},
        {"session_id": "x" * 257},
        {"properties": {"n": {"m": 2**63}}},
        {"properties": {"n": "\0"}},
    ],
    ids=str,
)
def test_members_that_no_table_can_hold_are_refused(members: dict[str, object]) -> None:
    with pytest.raises(Rejected):
        corrected(2_000_000, **members)
