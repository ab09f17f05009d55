"""Batches, waits and idle cost of a worker are bounded."""

import asyncio
import itertools
from collections.abc import Sequence

import pytest

from projector.live import worker as worker_module
from projector.live.worker import Worker
from projector.projection import Batch
from projector.store.sqlite import SqliteStore
from streams import Consumer, Delivery, Log, ReadRequest, keys_of
from streams.keys import PARTITIONS
from streams.log import PAGE_BYTES
from tests.support.clock import stopwatch
from tests.support.events import event, events, numbered
from tests.support.proxy import until
from tests.support.servers import Server
from tests.support.tables import checkpoint_of
from tests.support.workers import read, running, same_partition, take, until_applied, worker_of

pytestmark = pytest.mark.anyio


async def test_reads_of_many_tenants_are_bounded_in_bytes(log: Log, store: SqliteStore) -> None:
    tenants = [f"tenant-{i}" for i in range(150)]
    for tenant in tenants:
        await log.append(tenant, [event(session_id=f"S{i}", filler="x" * 16_000) for i in range(10)])
    batch_bytes = 1024 * 1024
    worker = worker_of(log, store, batch_bytes=batch_bytes, lease_seconds=30.0)
    read, sizes = worker._consumer.read, []

    async def measured(requests: Sequence[ReadRequest]) -> dict[str, Delivery]:
        deliveries = await read(requests)
        sizes.append(sum(len(record.body) for delivery in deliveries.values() for record in delivery.records))
        return deliveries

    worker._consumer.read = measured  # type: ignore[method-assign]
    await worker.run_to_end()  # reads the logs from the start, because the group is new
    for tenant in tenants:
        await log.append(tenant, [event(session_id=f"T{i}", filler="x" * 16_000) for i in range(10)])
    sizes.clear()
    await worker.run_to_end()

    assert all(checkpoint_of(store, tenant) == 20 for tenant in tenants)
    assert max(sizes) <= 4 * batch_bytes


async def test_a_lease_says_how_large_the_newest_record_is(server: Server, log: Log, store: SqliteStore, dead: Consumer) -> None:
    await dead.requeue([])
    await log.append("small", [event(filler="x" * 60_000), event(session_id="S2")])
    await log.append("large", [event(session_id="S2"), event(filler="x" * 60_000)])
    await log.append("lost", [event()])
    server.client.xdel(keys_of("lost").log, "1-0")

    leases = await dead.lease(range(PARTITIONS), records=100)
    sizes = {lease.tenant: lease.newest_bytes for of_partition in leases.values() for lease in of_partition}

    assert 200 < sizes["small"] < 1_000
    assert 60_000 < sizes["large"] < 61_000
    assert 0 < sizes["lost"] <= 200


async def test_missing_records_are_read_in_batches_of_bounded_bytes(
    log: Log, store: SqliteStore, dead: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = worker_of(log, store, batch_bytes=1024 * 1024)
    await worker.sweep()
    await log.append("acme", [event(session_id=f"S{i}", filler="x" * 60_000) for i in range(300)])
    await take(dead)
    await read(dead, 0, 300)
    apply, sizes = store.apply, []

    def measured(batches: Sequence[Batch]) -> list[bool]:
        sizes.append(sum(len(row.properties) for batch in batches for row in batch.rows))
        return apply(batches)

    monkeypatch.setattr(store, "apply", measured)
    await until_applied(worker, store, 300)

    assert max(sizes) <= 1024 * 1024 + PAGE_BYTES


@pytest.mark.usefixtures("frequent_sweeps")
async def test_a_busy_projector_does_not_truncate_the_wal(log: Log, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "SWEEP_SECONDS", 0)
    worker = worker_of(log, store, batch_records=50)
    await log.append("acme", numbered(0, 2_000))
    truncated: list[int] = []
    monkeypatch.setattr(store, "truncate_wal", lambda: truncated.append(checkpoint_of(store)))

    async with running(worker):
        await until(lambda: checkpoint_of(store) == 2_000 and 2_000 in truncated)

    assert set(truncated) == {0, 2_000}


async def test_many_events_of_one_tenant_do_not_delay_its_neighbours(log: Log, store: SqliteStore) -> None:
    worker = worker_of(log, store, batch_records=100, lease_seconds=30.0)
    await worker.sweep()
    await log.append("acme", numbered(0, 3_000))
    neighbours = same_partition("acme", 3)
    for tenant in neighbours:
        await log.append(tenant, events(2))

    for _ in range(6):
        worker._ready = set(range(PARTITIONS))
        await worker.run_once()

    assert [checkpoint_of(store, tenant) for tenant in neighbours] == [2, 2, 2]
    assert 0 < checkpoint_of(store) < 3_000


async def test_the_first_row_of_a_new_tenant_appears_at_once(log: Log, store: SqliteStore, worker: Worker) -> None:
    waited = []
    async with running(worker):
        await log.append("warm", events(1))
        await until(lambda: checkpoint_of(store, "warm") == 1)
        for i in range(5):
            with stopwatch() as watch:
                await log.append(f"new-{i}", events(1))
                await until(lambda tenant=f"new-{i}": checkpoint_of(store, tenant) == 1)  # type: ignore[misc]
                waited.append(watch.seconds)

    assert min(waited) < 0.1  # the machine may be busy during the others


async def test_thousands_of_idle_tenants_cost_almost_no_commands(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await asyncio.gather(*(log.append(f"tenant-{i}", [event()]) for i in range(2_000)))
    await worker.run_to_end()

    async with running(worker):
        totals = []
        for _ in range(4):
            totals.append(server.client.info("stats")["total_commands_processed"])
            await asyncio.sleep(1.0)  # commands are counted during this time

    seconds = [after - before for before, after in itertools.pairwise(totals)]
    assert min(seconds) < 1_000, "the first second may hold what is left of the start"
