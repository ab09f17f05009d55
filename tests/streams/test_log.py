"""A log returns its records from any position, in bounded pages.

A read names the gaps that it meets.
"""

import json
import time
from typing import Any

import pytest

from streams import Event, Log, Record, digest_of, keys_of
from streams import log as log_module
from streams.errors import Gap, LogUnavailable
from streams.log import PAGE_BYTES, PAGE_RECORDS
from tests.support.events import event, events
from tests.support.servers import Server

pytestmark = pytest.mark.anyio

LARGE = "x" * (64 * 1024 - 120)


async def pages_of(log: Log, after: int = 0, **options: Any) -> list[list[Record]]:
    return [page async for page in log.read("acme", after, **options)]


async def positions_of(log: Log, after: int = 0, **options: Any) -> list[int]:
    return [record.position for page in await pages_of(log, after, **options) for record in page]


async def read_until_gap(log: Log, after: int = 0, **options: Any) -> tuple[list[int], Gap]:
    """The positions that a read gives before the first gap, and the gap."""
    positions: list[int] = []
    with pytest.raises(Gap) as raised:
        async for page in log.read("acme", after, **options):
            positions += [record.position for record in page]
    return positions, raised.value


def remove(server: Server, *positions: int) -> None:
    assert server.client.xdel(keys_of("acme").log, *(f"{position}-0" for position in positions)) == len(positions)


def large_events(count: int) -> list[Event]:
    return [event(session_id=f"L{i}", filler=LARGE) for i in range(count)]


# -- reading -------------------------------------------------------------------------------------------------------------


async def test_a_read_gives_every_record_in_order(log: Log) -> None:
    sent = events(1_234)
    await log.append("acme", sent)

    records = [record for page in await pages_of(log) for record in page]

    assert [record.position for record in records] == list(range(1, 1_235))
    assert [record.body for record in records] == [sent_event.body for sent_event in sent]


async def test_a_read_begins_after_a_position(log: Log) -> None:
    await log.append("acme", events(10))

    assert await positions_of(log, 7) == [8, 9, 10]
    assert await positions_of(log, 10) == []


async def test_a_read_ends_at_the_requested_position(log: Log) -> None:
    await log.append("acme", events(1_100))

    assert await positions_of(log, 3, through=5) == [4, 5]
    assert await positions_of(log, 0, through=1_001) == list(range(1, 1_002))
    assert await positions_of(log, 5, through=5) == []


async def test_an_unknown_log_is_empty(log: Log) -> None:
    assert await positions_of(log) == []
    assert await log.last_position("acme") == 0
    assert await log.find("acme", 1) is None
    assert await log.summaries() == []


async def test_a_read_sees_records_that_are_appended_during_it(log: Log) -> None:
    await log.append("acme", events(PAGE_RECORDS))
    reading = log.read("acme", 0)
    await anext(reading)

    await log.append("acme", [event(session_id="late")])

    assert [record.position for record in await anext(reading)] == [PAGE_RECORDS + 1]


async def test_a_read_beyond_the_end_names_the_missing_positions(log: Log) -> None:
    await log.append("acme", events(3))

    positions, gap = await read_until_gap(log, through=5)

    assert positions == [1, 2, 3]
    assert (gap.first, gap.last) == (4, 5)


async def test_a_record_says_when_it_was_received(log: Log) -> None:
    before = time.time_ns() // 1000
    await log.append("acme", [event()])
    after = time.time_ns() // 1000

    [[record]] = await pages_of(log)

    assert before <= record.received_at_us <= after
    assert record.version == 1


async def test_an_entry_is_readable_by_a_person(server: Server, log: Log) -> None:
    await log.append("acme", [event(page="/a")])

    [(entry_id, fields)] = server.client.xrange(keys_of("acme").log)

    assert entry_id == b"1-0"
    assert list(fields) == [b"event", b"received_at_us", b"version"]
    assert json.loads(fields[b"event"])["properties"] == {"page": "/a"}
    assert fields[b"received_at_us"].isdigit() and fields[b"version"] == b"1"


async def test_find_returns_the_record_at_a_position_or_nothing(server: Server, log: Log) -> None:
    sent = events(3)
    await log.append("acme", sent)
    remove(server, 2)

    record = await log.find("acme", 3)

    assert record is not None and digest_of(record.body) == digest_of(sent[2].body)
    assert await log.find("acme", 2) is None
    assert await log.find("acme", 4) is None


async def test_find_each_returns_records_of_many_logs_in_the_requested_order(
    server: Server, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "PAGE_RECORDS", 2)  # several round trips
    tenants = [f"t{i}" for i in range(5)]
    for tenant in tenants:
        await log.append(tenant, [event(session_id=f"S{n}", of=tenant, n=n) for n in range(3)])
    server.client.xdel(keys_of("t3").log, "2-0")

    records = await log.find_each([(tenant, 2) for tenant in reversed([*tenants, "unknown"])])

    contents = [record and (record.position, json.loads(record.body)["properties"]) for record in records]
    assert contents == [None] + [None if i == 3 else (2, {"of": f"t{i}", "n": 1}) for i in (4, 3, 2, 1, 0)]


async def test_find_raises_the_error_of_the_server(server: Server, log: Log) -> None:
    server.client.set(keys_of("acme").log, "no stream")

    with pytest.raises(LogUnavailable, match="WRONGTYPE"):
        await log.find("acme", 1)


async def test_positions_of_a_hash_are_known_within_the_dedup_window(server: Server, log: Log) -> None:
    [first, second] = await log.append("acme", [event(session_id="S1", event_type="2x"), event(session_id="S12", event_type="x")])

    assert first.event_hash == second.event_hash
    assert await log.positions_of("acme", first.event_hash) == [1, 2]
    server.client.delete(*server.client.keys("*:dedup:*"))
    assert await log.positions_of("acme", first.event_hash) == []


async def test_the_last_position_is_the_position_of_the_newest_record(log: Log) -> None:
    await log.append("acme", events(7))
    await log.append("globex", events(2))

    assert [await log.last_position(tenant) for tenant in ("acme", "globex", "initech")] == [7, 2, 0]


# -- gaps ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("removed", "before", "missing"),
    [
        ([4], [1, 2, 3], (4, 4)),
        ([1], [], (1, 1)),
        ([3, 4, 5], [1, 2], (3, 5)),
        ([1, 2, 3], [], (1, 3)),
        ([2, 4], [1], (2, 2)),
    ],
)
async def test_a_gap_is_named_after_the_records_before_it(
    server: Server, log: Log, removed: list[int], before: list[int], missing: tuple[int, int]
) -> None:
    await log.append("acme", events(10))
    remove(server, *removed)

    positions, gap = await read_until_gap(log)

    assert positions == before
    assert (gap.tenant, gap.first, gap.last) == ("acme", *missing)
    assert f"{missing[0]} to {missing[1]}" in str(gap)


async def test_a_trimmed_head_is_a_gap(server: Server, log: Log) -> None:
    await log.append("acme", events(10))
    server.client.xtrim(keys_of("acme").log, minid="7-0", approximate=False)

    positions, gap = await read_until_gap(log)

    assert positions == []
    assert (gap.first, gap.last) == (1, 6)
    assert await positions_of(log, 6) == [7, 8, 9, 10]


async def test_a_gap_at_the_end_is_named_when_the_end_was_requested(server: Server, log: Log) -> None:
    await log.append("acme", events(5))
    remove(server, 4, 5)

    positions, gap = await read_until_gap(log, through=5)

    assert positions == [1, 2, 3]
    assert (gap.first, gap.last) == (4, 5)


async def test_a_gap_between_two_pages_is_named(server: Server, log: Log) -> None:
    await log.append("acme", events(PAGE_RECORDS + 10))
    remove(server, PAGE_RECORDS + 1)

    positions, gap = await read_until_gap(log)

    assert positions == list(range(1, PAGE_RECORDS + 1))
    assert (gap.first, gap.last) == (PAGE_RECORDS + 1, PAGE_RECORDS + 1)


async def test_a_read_that_begins_after_a_gap_does_not_raise(server: Server, log: Log) -> None:
    await log.append("acme", events(5))
    remove(server, 1, 2)

    assert await positions_of(log, 2) == [3, 4, 5]


async def test_the_position_of_a_removed_record_is_never_used_again(server: Server, log: Log) -> None:
    await log.append("acme", events(3))
    remove(server, 1, 2, 3)

    [receipt] = await log.append("acme", [event(session_id="next")])

    assert receipt.position == 4


async def test_summaries_say_what_each_log_holds(server: Server, log: Log) -> None:
    await log.append("acme", events(5))
    await log.append("globex", events(2))
    await log.append("initech", events(4))
    remove(server, 2)
    server.client.xtrim(keys_of("initech").log, minid="3-0", approximate=False)

    summaries = await log.summaries()

    assert [(summary.tenant, summary.last, summary.held) for summary in summaries] == [
        ("acme", 5, 4),
        ("globex", 2, 2),
        ("initech", 4, 2),
    ]
    assert [summary.has_gap for summary in summaries] == [True, False, True]


async def test_the_summary_of_a_log_that_lost_its_newest_record_has_a_gap(server: Server, log: Log) -> None:
    await log.append("acme", events(5))
    remove(server, 5)

    [summary] = await log.summaries()

    assert (summary.last, summary.held, summary.has_gap) == (5, 4, True)
    assert await log.gaps(summary) == [(5, 5)]


async def test_summaries_of_some_partitions_have_only_their_tenants(log: Log) -> None:
    await log.append("acme", events(1))
    await log.append("globex", events(1))

    assert [summary.tenant for summary in await log.summaries([keys_of("globex").partition])] == ["globex"]


async def test_all_gaps_of_a_log_are_named_up_to_a_limit(server: Server, log: Log) -> None:
    await log.append("acme", events(100))
    remove(server, 1, 2, 10, 50, 51, 52, 100)

    [summary] = await log.summaries()

    assert await log.gaps(summary) == [(1, 2), (10, 10), (50, 52), (100, 100)]
    assert await log.gaps(summary, limit=2) == [(1, 2), (10, 10)]


# -- entries written by hand ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"foo": "bar"},
        {"event": "{}"},
        {"event": "{}", "received_at_us": "1", "version": "1", "more": "1"},
        {"event": "{}", "version": "1", "received_at_us": "1"},
        {"event": "{}", "received_at_us": "soon", "version": "1"},
        {"event": "{}", "received_at_us": "1", "version": "-1"},
        {"event": b"\xff\x00", "received_at_us": "", "version": "1"},
    ],
    ids=str,
)
async def test_an_entry_written_by_hand_is_a_record_of_version_0_with_all_its_bytes(
    server: Server, log: Log, fields: dict[str, Any]
) -> None:
    server.client.xadd(keys_of("acme").log, fields, id="1-0")
    await log.append("acme", [event()])

    [[foreign, own]] = await pages_of(log)

    assert (foreign.position, foreign.version) == (1, 0)
    assert (own.position, own.version) == (2, 1)
    for part in fields.values():
        assert (part if isinstance(part, bytes) else part.encode()) in foreign.body


async def test_an_entry_of_a_later_version_keeps_its_version(server: Server, log: Log) -> None:
    server.client.xadd(keys_of("acme").log, {"event": "{}", "received_at_us": "5", "version": "2"}, id="1-0")

    [[record]] = await pages_of(log)

    assert record == Record(1, 5, 2, b"{}")


async def test_an_entry_between_two_positions_is_skipped(server: Server, log: Log) -> None:
    await log.append("acme", events(3))
    server.client.xadd(keys_of("acme").log, {"foo": "bar"}, id="3-1")
    await log.append("acme", [event(session_id="next")])

    assert await positions_of(log) == [1, 2, 3, 4]
    assert await positions_of(log, 2, through=4) == [3, 4]


# -- bounds --------------------------------------------------------------------------------------------------------------


async def test_pages_are_bounded_in_records(log: Log) -> None:
    await log.append("acme", events(3 * PAGE_RECORDS))

    assert len((await pages_of(log))[0]) == PAGE_RECORDS
    assert max(map(len, await pages_of(log))) <= 5_000


async def test_pages_of_large_records_are_bounded_in_bytes(log: Log) -> None:
    await log.append("acme", events(10) + large_events(700))

    pages = await pages_of(log)

    assert sum(map(len, pages)) == 710
    assert max(sum(len(record.body) for record in page) for page in pages) <= PAGE_BYTES


async def test_small_records_before_large_records_do_not_make_a_page_larger(log: Log) -> None:
    await log.append("acme", events(PAGE_RECORDS) + large_events(300))

    sizes = [sum(len(record.body) for record in page) for page in await pages_of(log)]

    assert max(sizes) <= PAGE_BYTES


async def test_the_size_of_earlier_records_limits_the_count_of_the_next_request(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log.append("acme", large_events(900))
    page, counts = log._page, []

    async def counted(tenant: str, after: int, count: int) -> list[Record]:
        counts.append(count)
        return await page(tenant, after, count)

    monkeypatch.setattr(log, "_page", counted)
    await pages_of(log)

    assert counts[0] == PAGE_RECORDS
    assert max(counts[1:]) * len(LARGE) <= PAGE_BYTES
