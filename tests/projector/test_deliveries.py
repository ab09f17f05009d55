"""A delivery is applied once and acknowledged when it is in the tables."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from projector.live import deliveries
from projector.live.scheduling import LeasedTenant
from projector.live.worker import Worker, group_of
from projector.projection import NO_CHECKPOINT, Batch
from projector.store.sqlite import SqliteStore
from streams import Consumer, Lease, Log, ReadRequest, keys_of
from streams.consumer import _delivery
from streams.keys import PARTITIONS, ready_key
from tests.support.events import events, numbered
from tests.support.servers import Server
from tests.support.tables import checkpoint_of, positions_of
from tests.support.workers import LEASE_SECONDS, pending_of, read, take, worker_of

pytestmark = pytest.mark.anyio


def entry(position: int) -> list[Any]:
    return [f"{position}-0".encode(), [b"event", b"{}", b"received_at_us", b"1", b"version", b"1"]]


def test_records_delivered_to_another_reader_are_not_taken_for_lost() -> None:
    request = ReadRequest(Lease("acme", since_ms=0, last=9, delivered=0, pending=0, newest_bytes=0), 0, 9, first=False)

    delivery = _delivery(request, {"first": [[b"log", [entry(1)]]], "others": [[b"log", [entry(5), entry(6)]]]})

    assert [record.position for record in delivery.records] == [1]
    assert delivery.pending == [(b"1-0", 6)]


async def test_a_delivery_is_acknowledged_only_when_all_of_it_is_in_the_tables(
    server: Server, log: Log, store: SqliteStore, dead: Consumer
) -> None:
    worker = worker_of(log, store, batch_records=500)
    await worker.sweep()
    await log.append("acme", numbered(0, 2_000))
    await take(dead)
    await read(dead, 0, 2_000)
    await asyncio.sleep(LEASE_SECONDS)

    while checkpoint_of(store) < 2_000:
        assert pending_of(server, store) == 1
        worker._ready = set(range(PARTITIONS))
        assert await worker.run_once() == 500

    assert pending_of(server, store) == 0
    assert positions_of(store) == list(range(1, 2_001))


async def test_a_group_that_lags_the_tables_catches_up_without_writing_rows_again(
    server: Server, log: Log, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = worker_of(log, store, batch_records=100)
    await log.append("acme", numbered(0, 350))
    await worker.run_to_end()
    server.client.xgroup_destroy(keys_of("acme").log, group_of(store))
    server.client.xgroup_create(keys_of("acme").log, group_of(store), "0")
    await log.append("acme", numbered(350, 5))
    apply, written = store.apply, []

    def counted(batches: Sequence[Batch]) -> list[bool]:
        written.append(sum(len(batch.rows) for batch in batches))
        return apply(batches)

    async def fill(*_: Any) -> Any:
        raise AssertionError("the group delivers the missing records")

    monkeypatch.setattr(store, "apply", counted)
    monkeypatch.setattr(deliveries, "fill", fill)
    await worker.run_to_end()

    assert written == [5]
    [group] = server.client.xinfo_groups(keys_of("acme").log)
    assert (group["last-delivered-id"], group["pending"]) == (b"355-0", 0)


async def test_a_tenant_of_which_nothing_was_read_keeps_its_place_in_the_queue(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await worker.sweep()
    await log.append("acme", events(1))
    ready = ready_key(keys_of("acme").partition, group_of(store))
    before = server.client.zscore(ready, "acme")
    lease = (await worker._consumer.lease([keys_of("acme").partition], records=10))[keys_of("acme").partition][0]
    assert lease.since_ms == before < server.client.zscore(ready, "acme")

    await worker._consumer.release([LeasedTenant(lease, NO_CHECKPOINT).release()])

    assert server.client.zscore(ready, "acme") == before
