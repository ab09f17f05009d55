"""What came in a good batch and is no event is a record of its own kind: in quarantine with its bytes, once, also after a rebuild."""

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


def bad(raw: bytes = b'{"type": "track"}', **more: object) -> Event:
    given = {"format": "segment", "reason": "invalid", "detail": "event: is missing", "limit_bytes": LIMIT} | more
    return dead_letter.make(raw, **given)  # type: ignore[arg-type]


async def test_it_lands_in_quarantine_and_its_neighbours_in_the_tables(log: Log, store: SqliteStore, worker: Worker) -> None:
    await log.append("acme", [parse_event(body()), bad(), parse_event(body(session_id="S2"))])

    await worker.run_to_end()

    tables = store.tables()
    [held] = tables.rows("quarantine", "acme")
    assert (held["position"], held["reason"], held["detail"]) == (2, "invalid", "event: is missing")
    assert held["body"] == b'{"type": "track"}'
    assert [row["position"] for row in tables.rows("events", "acme")] == [1, 3]


async def test_the_same_bytes_again_are_a_duplicate_of_it(log: Log) -> None:
    [first] = await log.append("acme", [bad()])
    again, other = await log.append("acme", [bad(detail="said in other words"), bad(b"other")])

    assert (first.status, again.status, again.position, other.status) == ("accepted", "duplicate", 1, "accepted")


async def test_what_differs_in_each_resend_does_not_name_it(log: Log) -> None:
    await log.append("acme", [bad(b'{"stm": 1}', named_by=b"{}")])
    [again] = await log.append("acme", [bad(b'{"stm": 2}', named_by=b"{}")])

    assert again.status == "duplicate"


async def test_a_rebuild_finds_it_again(log: Log, store: SqliteStore, worker: Worker) -> None:
    await log.append("acme", [bad(b"\xff\x00")])
    await worker.run_to_end()
    before = list(store.tables().rows("quarantine", "acme"))

    await rebuild(log, store)

    assert list(store.tables().rows("quarantine", "acme")) == before
    assert before[0]["body"] == b"\xff\x00"


def test_of_a_large_one_the_beginning_is_kept_and_its_size_said() -> None:
    event = bad(b"x" * 5_000)

    found = dead_letter.parse(Record(1, 0, DEAD_LETTER_VERSION, event.body))

    assert (len(found.raw), found.original_bytes) == (LIMIT, 5_000)


def test_its_claim_is_made_again_from_its_record() -> None:
    event = bad()
    record = Record(1, 1_000_000, DEAD_LETTER_VERSION, event.body)

    [key], [position, _, hash_parts, _] = dedup_keys_of("acme", [record], 60_000_000, 1_000_000)

    assert (position, hash_parts) == (1, "dead_letter")
    assert key.startswith("{") and "acme" in key


def test_what_is_no_such_record_is_refused() -> None:
    with pytest.raises(Rejected):
        dead_letter.parse(Record(1, 0, DEAD_LETTER_VERSION, b'{"name": "x"}'))


# -- a corrected clock -------------------------------------------------------------------------------------------------


def corrected(clock_us: int, **more: object) -> Event:
    given = {
        "session_id": "",
        "event_type": "click",
        "timestamp": "2026-01-01T10:00:00Z",
        "event_id": "m1",
        "properties": {"n": 1},
    }
    return make_event(**(given | more), clock_us=clock_us)  # type: ignore[arg-type]


async def test_a_resend_is_a_duplicate_whatever_its_clock_is_corrected_by(log: Log, store: SqliteStore, worker: Worker) -> None:
    first, again, other = await log.append(
        "acme", [corrected(5_000_000), corrected(-7_000_000), corrected(0, properties={"n": 2})]
    )
    await worker.run_to_end()

    [row] = store.tables().rows("events", "acme")
    assert (first.status, again.status, other.status) == ("accepted", "duplicate", "conflict")
    assert (row["timestamp"], row["timestamp_utc"]) == ("2026-01-01T10:00:00Z", "2026-01-01T10:00:05.000000Z")


def test_an_archive_gives_a_corrected_event_back_to_the_byte() -> None:
    records = [Record(1, 5, 1, corrected(5).body), Record(2, 6, 1, corrected(0).body), Record(3, 7, 3, bad().body)]

    assert [record for page in unpack(io.BytesIO(pack(records)), 0) for record in page] == records


def test_an_event_that_its_timestamp_names_keeps_its_clock() -> None:
    assert corrected(5, event_id=None).clock_us == 0


@pytest.mark.parametrize(
    "wrong",
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
def test_what_no_table_can_hold_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(Rejected):
        corrected(2_000_000, **wrong)
