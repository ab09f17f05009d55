"""Workers and consumers as tests drive them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from projector.live.worker import Worker, group_of
from projector.rebuild.verify import verify
from projector.store.sqlite import SqliteStore
from streams import Consumer, Delivery, Lease, Log, ReadRequest, keys_of
from streams.keys import PARTITIONS
from tests.support.servers import Server
from tests.support.tables import checkpoint_of

LEASE_SECONDS = 0.3


def consumer_of(log: Log, store: SqliteStore, lease_owner: str, lease_seconds: float = LEASE_SECONDS) -> Consumer:
    return Consumer(log.connection, group=group_of(store), lease_owner=lease_owner, lease_seconds=lease_seconds)


def worker_of(log: Log, store: SqliteStore, lease_owner: str = "test:2", **options: Any) -> Worker:
    return Worker(log, store, lease_owner=lease_owner, **({"lease_seconds": LEASE_SECONDS} | options))


async def take(consumer: Consumer, records: int = 100_000) -> list[str]:
    """The tenants that a consumer leases of all that are due."""
    leases = await consumer.lease(range(PARTITIONS), records=records)
    return [lease.tenant for of_partition in leases.values() for lease in of_partition]


async def read(consumer: Consumer, after: int, count: int, tenant: str = "acme") -> Delivery:
    """What is delivered to a consumer that leases the tenant."""
    lease = Lease(tenant, since_ms=0, last=after + count, delivered=after, pending=0, newest_bytes=0)
    return (await consumer.read([ReadRequest(lease, after, count, first=True)]))[tenant]


def pending_of(server: Server, store: SqliteStore, tenant: str = "acme") -> int:
    return int(server.client.xpending(keys_of(tenant).log, group_of(store))["pending"])


async def until_applied(worker: Worker, store: SqliteStore, position: int, tenant: str = "acme") -> None:
    """Run a worker until a checkpoint is reached."""
    async with asyncio.timeout(60):
        while checkpoint_of(store, tenant) < position:
            await worker.run_to_end()
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[asyncio.Task[None]]:
    """A worker that runs as in its process, and must not die."""
    await worker.sweep()
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    try:
        yield task
        assert not task.done() or task.exception() is None, "the worker died"
    finally:
        stop.set()
        await asyncio.wait([task], timeout=60)
    await task


async def equal_to_the_log(log: Log, store: SqliteStore) -> None:
    assert [difference async for difference in verify(log, store)] == []


def same_partition(tenant: str, count: int) -> list[str]:
    """Other tenants of a tenant's partition."""
    partition = keys_of(tenant).partition
    return [name for name in (f"tenant-{i}" for i in range(10_000)) if keys_of(name).partition == partition][:count]
