"""Consumer groups only deliver records.

A destroyed, old, new or shared group changes nothing in the tables.
"""

import asyncio
from pathlib import Path

import pytest

from projector.live.worker import Worker, group_of
from projector.store.sqlite import SqliteStore
from streams import Log, keys_of
from streams.keys import PARTITIONS, leases_key, ready_key
from tests.support.events import events, numbered
from tests.support.proxy import until
from tests.support.servers import Server
from tests.support.tables import checkpoint_of, count_in_sessions, positions_of, rows_of
from tests.support.workers import consumer_of, equal_to_the_log, pending_of, read, running, take, until_applied, worker_of

pytestmark = pytest.mark.anyio


async def test_restarts_leave_no_unused_consumers(server: Server, log: Log, store: SqliteStore) -> None:
    for i in range(50):
        await log.append("acme", numbered(i * 3, 3))
        worker = worker_of(log, store, f"host:{i}")
        if i % 5:
            await worker.run_to_end()
        else:  # this projector dies with its delivery
            dead = consumer_of(log, store, f"dead:{i}", lease_seconds=0.001)
            await worker.sweep()
            assert await take(dead) == ["acme"]
            await read(dead, checkpoint_of(store), 2)

    await until_applied(worker_of(log, store, "last"), store, 150)

    assert positions_of(store) == list(range(1, 151))
    assert len(server.client.xinfo_consumers(keys_of("acme").log, group_of(store))) == 1
    assert pending_of(server, store) == 0
    assert server.client.hlen(leases_key(keys_of("acme").partition, group_of(store))) == 0


async def test_a_new_database_reads_an_old_log_from_its_start(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await log.append("acme", numbered(0, 3_000))

    await worker.run_to_end()
    for i in range(5):
        await log.append("acme", numbered(10_000 + i, 1))
        await worker.run_to_end()

    assert positions_of(store) == list(range(1, 3_006))
    assert pending_of(server, store) == 0


async def test_a_destroyed_group_is_created_again_and_leaves_nothing_pending(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await log.append("acme", numbered(0, 500))
    await worker.run_to_end()
    await log.append("acme", numbered(500, 500))
    server.client.xgroup_destroy(keys_of("acme").log, group_of(store))

    await worker.run_to_end()
    for i in range(5):
        await log.append("acme", numbered(10_000 + i, 1))
        await worker.run_to_end()

    assert positions_of(store) == list(range(1, 1_006))
    assert count_in_sessions(store) == 1_005
    assert pending_of(server, store) == 0


def destroy_group(server: Server, store: SqliteStore) -> None:
    server.client.xgroup_destroy(keys_of("acme").log, group_of(store))


async def test_a_group_that_is_destroyed_under_load_loses_no_record(own_server: Server, own_log: Log, store: SqliteStore) -> None:
    worker = worker_of(own_log, store)
    async with running(worker):
        for i in range(30):
            await own_log.append("acme", numbered(i * 20, 20))
            if i % 10 == 5:
                destroy_group(own_server, store)
        await until(lambda: checkpoint_of(store) == 600)

    assert positions_of(store) == list(range(1, 601))
    assert count_in_sessions(store) == 600
    await equal_to_the_log(own_log, store)


async def test_two_databases_read_one_log_independently(
    server: Server, log: Log, store: SqliteStore, worker: Worker, tmp_path: Path
) -> None:
    with SqliteStore(str(tmp_path / "other.db"), cache_mib=8) as other_store:
        other = worker_of(log, other_store)
        assert group_of(other_store) != group_of(store)
        for i in range(4):
            await log.append("acme", numbered(i * 5, 5))
            await (worker if i % 2 else other).run_to_end()

        await worker.run_to_end()
        await other.run_to_end()

        assert positions_of(store) == positions_of(other_store) == list(range(1, 21))
        assert pending_of(server, store) == pending_of(server, other_store) == 0


async def test_two_workers_of_one_group_apply_each_record_once(log: Log, store: SqliteStore, tmp_path: Path) -> None:
    tenants = [f"tenant-{i}" for i in range(40)]
    with SqliteStore(store.path, cache_mib=8) as same_store:
        first, second = worker_of(log, store, "first", batch_records=200), worker_of(log, same_store, "second", batch_records=200)
        async with running(first), running(second):
            for round_number in range(4):
                await asyncio.gather(*(log.append(tenant, numbered(round_number * 20, 20)) for tenant in tenants))
            await until(lambda: all(checkpoint_of(store, tenant) == 80 for tenant in tenants))

    assert rows_of(store) == [(tenant, position) for tenant in sorted(tenants) for position in range(1, 81)]
    assert count_in_sessions(store) == 40 * 80
    assert rows_of(store, "SELECT sum(late_duplicates) FROM checkpoints") == [(0,)]
    await equal_to_the_log(log, store)


async def test_a_lost_ready_queue_is_repaired(server: Server, log: Log, store: SqliteStore, worker: Worker) -> None:
    await worker.sweep()
    await log.append("acme", events(5))
    assert server.client.delete(ready_key(keys_of("acme").partition, group_of(store))) == 1

    assert await worker.run_once() == 0
    await worker.sweep()
    worker._ready = set(range(PARTITIONS))
    assert await worker.run_once() == 5
