"""A dead, late or paused projector loses no record and doubles none."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from projector.live import deliveries
from projector.live import worker as worker_module
from projector.live.worker import Worker, group_of
from projector.store.sqlite import SqliteStore
from streams import Connection, Consumer, Delivery, Log, ReadRequest, Release, keys_of
from streams.errors import LogUnavailable
from streams.keys import leases_key
from tests.support.clock import stopwatch
from tests.support.events import event, events, numbered
from tests.support.proxy import Proxy, until
from tests.support.servers import Server
from tests.support.tables import checkpoint_of, count_in_sessions, positions_of, quarantine_of, rows_of
from tests.support.workers import (
    LEASE_SECONDS,
    consumer_of,
    equal_to_the_log,
    pending_of,
    read,
    running,
    take,
    until_applied,
    worker_of,
)

pytestmark = pytest.mark.anyio


async def test_records_delivered_to_a_dead_projector_are_applied_when_its_lease_ends(
    server: Server, log: Log, store: SqliteStore, worker: Worker, dead: Consumer
) -> None:
    await worker.sweep()
    await log.append("acme", events(5))
    with stopwatch() as watch:
        assert await take(dead) == ["acme"]
        await read(dead, 0, 100)

        assert await worker.run_to_end() == 0
        await until_applied(worker, store, 5)

        assert watch.wall_seconds > LEASE_SECONDS * 0.9
        assert watch.seconds < LEASE_SECONDS + 1
    assert positions_of(store) == [1, 2, 3, 4, 5]
    assert pending_of(server, store) == 0


async def test_a_leased_tenant_that_was_never_read_is_taken_over(
    log: Log, store: SqliteStore, worker: Worker, dead: Consumer
) -> None:
    await worker.sweep()
    await log.append("acme", events(5))
    assert await take(dead) == ["acme"]

    await until_applied(worker, store, 5)

    assert positions_of(store) == [1, 2, 3, 4, 5]


async def test_a_running_projector_takes_over_when_the_lease_ends(
    log: Log, store: SqliteStore, worker: Worker, dead: Consumer
) -> None:
    await worker.sweep()
    await log.append("acme", events(5))
    assert await take(dead) == ["acme"]

    with stopwatch() as watch:
        async with running(worker):
            await until(lambda: checkpoint_of(store) == 5)

        assert watch.seconds < LEASE_SECONDS + 1.5


async def test_five_thousand_records_of_a_dead_projector_are_taken_over(
    server: Server, log: Log, store: SqliteStore, worker: Worker, dead: Consumer
) -> None:
    await worker.sweep()
    await log.append("acme", numbered(0, 5_000))
    assert await take(dead) == ["acme"]
    delivery = await read(dead, 0, 5_000)
    assert len(delivery.records) == 5_000
    assert pending_of(server, store) == 1

    await until_applied(worker, store, 5_000)

    assert positions_of(store) == list(range(1, 5_001))
    assert pending_of(server, store) == 0
    assert quarantine_of(store) == []


async def test_records_that_were_committed_but_not_acknowledged_are_not_applied_again(
    server: Server, log: Log, store: SqliteStore, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await worker.sweep()
    await log.append("acme", events(5))

    async def die(_: Sequence[tuple[str, Sequence[bytes]]]) -> None:
        raise LogUnavailable("killed between commit and acknowledge")

    with monkeypatch.context() as patched:
        patched.setattr(worker._consumer, "acknowledge", die)
        with pytest.raises(LogUnavailable):
            await worker.run_to_end()
    assert (checkpoint_of(store), pending_of(server, store)) == (5, 1)
    other = worker_of(log, store)
    async with running(other):
        await until(lambda: pending_of(server, store) == 0)

    assert positions_of(store) == [1, 2, 3, 4, 5]
    assert count_in_sessions(store) == 5
    assert rows_of(store, "SELECT late_duplicates FROM checkpoints") == [(0,)]


async def test_lost_leases_change_nothing_in_the_tables(
    server: Server, log: Log, store: SqliteStore, worker: Worker, dead: Consumer
) -> None:
    await worker.sweep()
    await log.append("acme", events(5))
    await take(dead)
    await read(dead, 0, 100)
    server.client.delete(leases_key(keys_of("acme").partition, group_of(store)))

    await until_applied(worker, store, 5)

    assert positions_of(store) == [1, 2, 3, 4, 5]
    assert count_in_sessions(store) == 5


async def test_a_projector_that_wakes_with_an_old_batch_writes_nothing(
    server: Server, log: Log, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SqliteStore(store.path, cache_mib=8) as same_store:
        late_worker, other_worker = worker_of(log, store, "late"), worker_of(log, same_store, "other")
        await late_worker.sweep()
        await log.append("acme", events(5))
        next_batch = deliveries.next_batch

        async def paused(*arguments: Any) -> Any:
            patched.setattr(worker_module, "next_batch", next_batch)
            batch = await next_batch(*arguments)
            await until_applied(other_worker, same_store, 5)
            await log.append("acme", [event(session_id="meanwhile")])
            return batch

        with monkeypatch.context() as patched:
            patched.setattr(worker_module, "next_batch", paused)
            assert await late_worker.run_once() == 0
        await other_worker.run_to_end()

    assert positions_of(store) == [1, 2, 3, 4, 5, 6]
    assert count_in_sessions(store) == 6
    assert rows_of(store, "SELECT late_duplicates FROM checkpoints") == [(0,)]
    assert pending_of(server, store) == 0
    await equal_to_the_log(log, store)


async def test_records_delivered_to_a_late_reader_are_not_lost(
    server: Server, log: Log, store: SqliteStore, worker: Worker, dead: Consumer
) -> None:
    await worker.sweep()
    await log.append("acme", events(5))
    await take(dead)
    await until_applied(worker, store, 5)
    await log.append("acme", numbered(0, 2))
    delivery = await read(dead, 0, 100)
    assert [record.position for record in delivery.records] == [6, 7]

    await worker.run_to_end()
    await dead.release([Release("acme", 0)])

    assert positions_of(store) == [1, 2, 3, 4, 5, 6, 7]
    assert pending_of(server, store) == 0


async def test_a_late_release_does_not_end_the_lease_of_another_projector(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await worker.sweep()
    await log.append("acme", events(5))
    late_consumer, lease_owner = consumer_of(log, store, "late", 0.05), consumer_of(log, store, "owner", 30.0)
    await take(late_consumer)
    leased: list[str] = []
    async with asyncio.timeout(60):
        while not leased:
            leased = await take(lease_owner)

    await late_consumer.acknowledge([("acme", [b"1-0"])])
    await late_consumer.release([Release("acme", 5)])

    assert server.client.hget(leases_key(keys_of("acme").partition, group_of(store)), "acme") == b"owner"
    assert await take(consumer_of(log, store, "third")) == []


async def test_a_read_that_timed_out_loses_no_record(server: Server, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Proxy(server.socket) as proxy, Log(Connection(proxy.url, budget_seconds=0.2)) as log:
        worker = worker_of(log, store)
        await worker.sweep()
        await log.append("acme", events(5))
        read = worker._consumer.read

        async def into_a_black_hole(requests: Sequence[ReadRequest]) -> dict[str, Delivery]:
            proxy.black_hole = True
            return await read(requests)

        with monkeypatch.context() as patched:
            patched.setattr(worker._consumer, "read", into_a_black_hole)
            with pytest.raises(LogUnavailable):
                await worker.run_once()
        assert pending_of(server, store) == 1
        proxy.black_hole = False
        await proxy.cut()
        await until_applied(worker, store, 5)

    assert positions_of(store) == [1, 2, 3, 4, 5]
    assert pending_of(server, store) == 0
