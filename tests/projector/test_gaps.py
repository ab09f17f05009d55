"""Missing records and foreign entries stop no other tenant."""

import pytest

from projector.live.worker import Worker
from projector.store.sqlite import SqliteStore
from streams import Consumer, Log, keys_of
from tests.support.events import event, events, numbered
from tests.support.proxy import until
from tests.support.servers import Server
from tests.support.tables import checkpoint_of, positions_of, quarantine_of, rows_of
from tests.support.workers import equal_to_the_log, pending_of, read, running, same_partition, take, until_applied

pytestmark = pytest.mark.anyio


async def test_a_record_removed_after_its_delivery_is_one_lost_record(
    server: Server, log: Log, store: SqliteStore, worker: Worker, dead: Consumer
) -> None:
    await worker.sweep()
    await log.append("acme", events(5))
    await take(dead)
    await read(dead, 0, 100)
    server.client.xdel(keys_of("acme").log, "3-0")

    await until_applied(worker, store, 5)
    await log.append("acme", [event(session_id="next")])
    await worker.run_to_end()

    assert positions_of(store) == [1, 2, 4, 5, 6]
    assert quarantine_of(store) == [(3, "lost")]
    assert pending_of(server, store) == 0
    await equal_to_the_log(log, store)


@pytest.mark.parametrize("removed", [[1], [3], [5], [1, 2, 3, 4, 5], [2, 4]], ids=str)
async def test_a_record_removed_before_its_delivery_is_in_quarantine_as_lost(
    server: Server, log: Log, store: SqliteStore, worker: Worker, removed: list[int]
) -> None:
    await worker.sweep()
    await log.append("acme", events(5))
    server.client.xdel(keys_of("acme").log, *(f"{position}-0" for position in removed))

    await worker.run_to_end()
    await log.append("acme", [event(session_id="next")])
    await worker.run_to_end()

    assert positions_of(store) == [position for position in range(1, 7) if position not in removed]
    assert quarantine_of(store) == [(position, "lost") for position in removed]
    assert pending_of(server, store) == 0


async def test_a_gap_too_large_for_quarantine_stops_its_tenant_with_a_message(
    server: Server, log: Log, store: SqliteStore, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    await log.append("acme", events(3))
    await worker.run_to_end()
    await log.append("acme", numbered(0, 2_000))
    await log.append("globex", events(2))
    server.client.xtrim(keys_of("acme").log, minid="1900-0", approximate=False)

    await worker.run_to_end()

    assert checkpoint_of(store) == 3
    assert positions_of(store, "globex") == [1, 2]
    assert quarantine_of(store) == []
    assert "misses the records at positions 4 to 1899" in caplog.text


async def test_an_entry_at_a_far_position_stops_only_its_tenant(
    server: Server, log: Log, store: SqliteStore, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    await worker.sweep()
    await log.append("acme", events(3))
    server.client.xadd(keys_of("acme").log, {"foo": "bar"}, id="200000-0")  # XADD * would use position 1,700,000,000,000
    await log.append("acme", [event(session_id="next")])
    await log.append("globex", events(2))

    await worker.run_to_end()

    assert positions_of(store, "globex") == [1, 2]
    assert len(quarantine_of(store)) < 2_000
    assert "misses the records at positions 4 to 199999" in caplog.text


async def test_an_entry_written_by_hand_is_in_quarantine_with_its_bytes(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await worker.sweep()
    await log.append("acme", events(2))
    server.client.xadd(keys_of("acme").log, {"foo": "bar"}, id="3-0")
    server.client.xadd(keys_of("acme").log, {"event": "[]", "received_at_us": "7", "version": "1"}, id="4-0")
    server.client.xadd(keys_of("acme").log, {"event": b"\xff\x00", "received_at_us": "7", "version": "1"}, id="5-0")
    await log.append("acme", [event(session_id="next")])

    await worker.run_to_end()

    assert positions_of(store) == [1, 2, 6]
    assert rows_of(store, "SELECT position, reason, body FROM quarantine ORDER BY 1") == [
        (3, "invalid", b"foo bar"),
        (4, "invalid", b"[]"),
        (5, "invalid", b"\xff\x00"),
    ]
    assert pending_of(server, store) == 0
    await equal_to_the_log(log, store)


async def test_an_entry_between_two_positions_changes_nothing(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await worker.sweep()
    await log.append("acme", events(2))
    server.client.xadd(keys_of("acme").log, {"foo": "bar"}, id="2-1")
    server.client.xadd(keys_of("acme").log, {"foo": "baz"}, id="2-2")
    await log.append("acme", [event(session_id="next")])

    await worker.run_to_end()

    assert positions_of(store) == [1, 2, 3]
    assert quarantine_of(store) == []
    await equal_to_the_log(log, store)


@pytest.mark.usefixtures("frequent_sweeps")
async def test_a_tenant_whose_log_is_no_stream_stops_no_other_tenant(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    tenants = ["acme", *same_partition("acme", 2)]
    for tenant in tenants:
        await log.append(tenant, events(2))
    await worker.sweep()
    server.client.delete(keys_of("acme").log)
    server.client.set(keys_of("acme").log, "in the way")

    async with running(worker):
        await until(lambda: [checkpoint_of(store, tenant) for tenant in tenants[1:]] == [2, 2])
