"""Whatever is lost, paused, removed or restored between log and tables, each record is applied once or its absence is said."""

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pysqlite3
import pytest

from projector import SqliteStore
from projector.live import worker as worker_module
from projector.live.scheduling import LeasedTenant
from projector.live.worker import Worker, group_of
from projector.projection.project import Batch
from projector.rebuild.rebuild import RebuildRefused, rebuild
from projector.rebuild.verify import verify
from projector.store.sqlite.table_set import NO_CHECKPOINT
from streams import (
    PARTITIONS,
    Connection,
    Consumer,
    Delivery,
    Event,
    Lease,
    Log,
    LogUnavailable,
    ReadRequest,
    Release,
    keys_of,
    leases_key,
)
from streams.consumer import _delivery
from streams.keys import ready_key
from streams.log import PAGE_BYTES
from tests.support.events import event, events
from tests.support.proxy import Proxy, until
from tests.support.servers import Server

pytestmark = pytest.mark.anyio

LEASE_SECONDS = 0.3
IN_ORDER = {"events": "position", "event_sessions": "first_position", "checkpoints": "position"}


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker does every few seconds, it does several times a second."""
    monkeypatch.setattr(worker_module, "SWEEP_SECONDS", 0.5)
    monkeypatch.setattr(worker_module, "STUCK_SECONDS", 0.5)


@pytest.fixture
async def own_log(own_server: Server) -> AsyncIterator[Log]:
    async with Log(Connection(own_server.url)) as log:
        yield log


@pytest.fixture
def dead(log: Log, store: SqliteStore) -> Consumer:
    """A projector's consumer that takes and reads, and is never heard of again."""
    return consumer_of(log, store, "dead")


def consumer_of(log: Log, store: SqliteStore, lease_owner: str, lease_seconds: float = LEASE_SECONDS) -> Consumer:
    return Consumer(log.connection, group=group_of(store), lease_owner=lease_owner, lease_seconds=lease_seconds)


def worker_of(log: Log, store: SqliteStore, lease_owner: str = "test:2", **options: Any) -> Worker:
    return Worker(log, store, lease_owner=lease_owner, **({"lease_seconds": LEASE_SECONDS} | options))


async def take(consumer: Consumer, records: int = 100_000) -> list[str]:
    """The tenants that a consumer takes of all that are due."""
    taken = await consumer.lease(range(PARTITIONS), records=records)
    return [one.tenant for some in taken.values() for one in some]


async def read(consumer: Consumer, after: int, count: int, tenant: str = "acme") -> Delivery:
    """What a consumer is given that has taken the tenant."""
    taken = Lease(tenant, since_ms=0, last=after + count, delivered=after, pending=0, newest_bytes=0)
    return (await consumer.read([ReadRequest(taken, after, count, first=True)]))[tenant]


def rows_of(store: SqliteStore, what: str = "SELECT tenant_id, position FROM events ORDER BY 1, 2") -> list[tuple[Any, ...]]:
    with store.reading() as connection:
        return [tuple(row) for row in connection.execute(what)]


def positions_of(store: SqliteStore, tenant: str = "acme") -> list[int]:
    return [position for of, position in rows_of(store) if of == tenant]


def quarantine_of(store: SqliteStore) -> list[tuple[Any, ...]]:
    return rows_of(store, "SELECT position, reason FROM quarantine ORDER BY 1")


def checkpoint_of(store: SqliteStore, tenant: str = "acme") -> int:
    return store.tables().checkpoint(tenant).position


def count_in_sessions(store: SqliteStore) -> int:
    return int(rows_of(store, "SELECT coalesce(sum(event_count), 0) FROM event_sessions")[0][0])


def pending_of(server: Server, store: SqliteStore, tenant: str = "acme") -> int:
    return int(server.client.xpending(keys_of(tenant).log, group_of(store))["pending"])


async def append_at_last(log: Log, tenant: str, some: Sequence[Event]) -> None:
    """Append as a client does: again, when nobody could say whether it was written."""
    while True:
        with contextlib.suppress(LogUnavailable):
            await log.append(tenant, some)
            return


def numbered(first: int, count: int) -> list[Event]:
    return [event(session_id=f"S{i % 7}", event_id=f"e{i}", n=i) for i in range(first, first + count)]


async def until_applied(worker: Worker, store: SqliteStore, position: int, tenant: str = "acme") -> None:
    """Let a worker go on until it is there; for what another holds until its lease ends."""
    async with asyncio.timeout(10):
        while checkpoint_of(store, tenant) < position:
            await worker.run_to_end()
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[asyncio.Task[None]]:
    """A worker that runs as in its process, knows the logs from the start, and was running until the end."""
    await worker.sweep()
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    try:
        yield task
        assert not task.done() or task.exception() is None, "the worker died"
    finally:
        stop.set()
        await asyncio.wait([task], timeout=10)
    await task


async def equal_to_the_log(log: Log, store: SqliteStore) -> None:
    assert [difference async for difference in verify(log, store)] == []


# -- what a dead projector left ------------------------------------------------------------------------------------------


async def test_what_a_dead_projector_was_given_is_applied_when_its_lease_ends(
    server: Server, log: Log, store: SqliteStore, worker: Worker, dead: Consumer
) -> None:
    await worker.sweep()
    await log.append("acme", events(5))
    started = time.monotonic()
    assert await take(dead) == ["acme"]
    await read(dead, 0, 100)

    assert await worker.run_to_end() == 0
    await until_applied(worker, store, 5)

    assert LEASE_SECONDS * 0.9 < time.monotonic() - started < LEASE_SECONDS + 1
    assert positions_of(store) == [1, 2, 3, 4, 5]
    assert pending_of(server, store) == 0


async def test_a_tenant_that_was_taken_and_never_read_is_taken_over(
    log: Log, store: SqliteStore, worker: Worker, dead: Consumer
) -> None:
    await worker.sweep()
    await log.append("acme", events(5))
    assert await take(dead) == ["acme"]

    await until_applied(worker, store, 5)

    assert positions_of(store) == [1, 2, 3, 4, 5]


async def test_a_running_projector_takes_over_within_the_lease(
    log: Log, store: SqliteStore, worker: Worker, dead: Consumer
) -> None:
    await worker.sweep()
    await log.append("acme", events(5))
    assert await take(dead) == ["acme"]
    started = time.monotonic()

    async with running(worker):
        await until(lambda: checkpoint_of(store) == 5)

    assert time.monotonic() - started < LEASE_SECONDS + 1.5


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


async def test_what_was_committed_and_not_acknowledged_is_acknowledged_and_not_applied_again(
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


async def test_a_record_that_was_removed_after_it_was_delivered_is_one_alarm(
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
async def test_a_record_that_was_removed_before_it_was_delivered_is_set_aside_as_lost(
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


async def test_a_hole_too_large_to_be_set_aside_stops_the_tenant_and_says_so(
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


async def test_an_entry_by_hand_far_ahead_stops_its_tenant_and_no_other(
    server: Server, log: Log, store: SqliteStore, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    await worker.sweep()
    await log.append("acme", events(3))
    server.client.xadd(keys_of("acme").log, {"foo": "bar"}, id="200000-0")  # XADD * would be at 1,700,000,000,000
    await log.append("acme", [event(session_id="next")])
    await log.append("globex", events(2))

    await worker.run_to_end()

    assert positions_of(store, "globex") == [1, 2]
    assert len(quarantine_of(store)) < 2_000
    assert "misses the records at positions 4 to 199999" in caplog.text


async def test_an_entry_by_hand_is_set_aside_with_its_bytes(server: Server, log: Log, store: SqliteStore, worker: Worker) -> None:
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


@pytest.mark.usefixtures("often")
async def test_a_tenant_whose_log_is_no_stream_stops_no_other(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    tenants = ["acme", *same_partition("acme", 2)]
    for tenant in tenants:
        await log.append(tenant, events(2))
    await worker.sweep()
    server.client.delete(keys_of("acme").log)
    server.client.set(keys_of("acme").log, "in the way")

    async with running(worker):
        await until(lambda: [checkpoint_of(store, tenant) for tenant in tenants[1:]] == [2, 2], seconds=3)


def same_partition(tenant: str, count: int) -> list[str]:
    """Other tenants of a tenant's partition."""
    wanted = keys_of(tenant).partition
    return [name for name in (f"tenant-{i}" for i in range(10_000)) if keys_of(name).partition == wanted][:count]


# -- consumers and groups ------------------------------------------------------------------------------------------------


async def test_restarts_leave_no_consumers_behind(server: Server, log: Log, store: SqliteStore) -> None:
    for i in range(50):
        await log.append("acme", numbered(i * 3, 3))
        worker = worker_of(log, store, f"host:{i}")
        if i % 5:
            await worker.run_to_end()
        else:  # this one dies with what it was given
            dead = consumer_of(log, store, f"dead:{i}", lease_seconds=0.001)
            await worker.sweep()
            assert await take(dead) == ["acme"]
            await read(dead, checkpoint_of(store), 2)

    await until_applied(worker_of(log, store, "last"), store, 150)

    assert positions_of(store) == list(range(1, 151))
    assert len(server.client.xinfo_consumers(keys_of("acme").log, group_of(store))) == 1
    assert pending_of(server, store) == 0
    assert server.client.hlen(leases_key(keys_of("acme").partition, group_of(store))) == 0


async def test_an_old_log_is_read_from_its_start_by_a_new_database(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await log.append("acme", numbered(0, 3_000))

    await worker.run_to_end()
    for i in range(5):
        await log.append("acme", numbered(10_000 + i, 1))
        await worker.run_to_end()

    assert positions_of(store) == list(range(1, 3_006))
    assert pending_of(server, store) == 0


async def test_a_group_that_was_destroyed_is_made_again_and_leaves_nothing_pending(
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


async def test_two_databases_on_one_log_do_not_disturb_each_other(
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
    with SqliteStore(store.path, cache_mib=8) as same:
        one, other = worker_of(log, store, "one", batch_records=200), worker_of(log, same, "other", batch_records=200)
        async with running(one), running(other):
            for turn in range(4):
                await asyncio.gather(*(log.append(tenant, numbered(turn * 20, 20)) for tenant in tenants))
            await until(lambda: all(checkpoint_of(store, tenant) == 80 for tenant in tenants))

    assert rows_of(store) == [(tenant, position) for tenant in sorted(tenants) for position in range(1, 81)]
    assert count_in_sessions(store) == 40 * 80
    assert rows_of(store, "SELECT sum(late_duplicates) FROM checkpoints") == [(0,)]
    await equal_to_the_log(log, store)


async def test_a_lost_ready_set_is_repaired(server: Server, log: Log, store: SqliteStore, worker: Worker) -> None:
    await worker.sweep()
    await log.append("acme", events(5))
    assert server.client.delete(ready_key(keys_of("acme").partition, group_of(store))) == 1

    assert await worker.run_once() == 0
    await worker.sweep()
    worker._ready = set(range(PARTITIONS))
    assert await worker.run_once() == 5


async def test_lost_leases_disturb_nothing(server: Server, log: Log, store: SqliteStore, worker: Worker, dead: Consumer) -> None:
    await worker.sweep()
    await log.append("acme", events(5))
    await take(dead)
    await read(dead, 0, 100)
    server.client.delete(leases_key(keys_of("acme").partition, group_of(store)))

    await until_applied(worker, store, 5)

    assert positions_of(store) == [1, 2, 3, 4, 5]
    assert count_in_sessions(store) == 5


# -- deliveries ----------------------------------------------------------------------------------------------------------


def entry(position: int) -> list[Any]:
    return [f"{position}-0".encode(), [b"event", b"{}", b"received_at_us", b"1", b"version", b"1"]]


def test_records_that_another_reader_was_given_in_between_are_not_taken_for_lost() -> None:
    want = ReadRequest(Lease("acme", since_ms=0, last=9, delivered=0, pending=0, newest_bytes=0), 0, 9, first=False)

    delivery = _delivery(want, {"one": [[b"log", [entry(1)]]], "rest": [[b"log", [entry(5), entry(6)]]]})

    assert [record.position for record in delivery.records] == [1]
    assert delivery.pending == [(b"1-0", 6)]


async def test_a_delivery_is_acknowledged_when_all_of_it_is_in_the_tables_and_not_before(
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


async def test_a_group_that_is_behind_the_tables_catches_up_and_writes_nothing(
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
        raise AssertionError("the group gives what is missing")

    monkeypatch.setattr(store, "apply", counted)
    monkeypatch.setattr(worker, "_fill", fill)
    await worker.run_to_end()

    assert written == [5]
    [group] = server.client.xinfo_groups(keys_of("acme").log)
    assert (group["last-delivered-id"], group["pending"]) == (b"355-0", 0)


async def test_a_tenant_that_got_nothing_goes_back_to_its_place_in_the_queue(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await worker.sweep()
    await log.append("acme", events(1))
    ready = ready_key(keys_of("acme").partition, group_of(store))
    before = server.client.zscore(ready, "acme")
    taken = (await worker._consumer.lease([keys_of("acme").partition], records=10))[keys_of("acme").partition][0]
    assert taken.since_ms == before < server.client.zscore(ready, "acme")

    await worker._consumer.release([LeasedTenant(taken, NO_CHECKPOINT).release()])

    assert server.client.zscore(ready, "acme") == before


# -- one that woke up late -----------------------------------------------------------------------------------------------


async def test_one_that_holds_an_old_batch_writes_nothing_when_it_wakes(
    server: Server, log: Log, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SqliteStore(store.path, cache_mib=8) as same:
        late, other = worker_of(log, store, "late"), worker_of(log, same, "other")
        await late.sweep()
        await log.append("acme", events(5))
        next_batch = late._next_batch

        async def paused(*arguments: Any) -> Any:
            batch = await next_batch(*arguments)
            await until_applied(other, same, 5)
            await log.append("acme", [event(session_id="meanwhile")])
            return batch

        with monkeypatch.context() as patched:
            patched.setattr(late, "_next_batch", paused)
            assert await late.run_once() == 0
        await other.run_to_end()

    assert positions_of(store) == [1, 2, 3, 4, 5, 6]
    assert count_in_sessions(store) == 6
    assert rows_of(store, "SELECT late_duplicates FROM checkpoints") == [(0,)]
    assert pending_of(server, store) == 0
    await equal_to_the_log(log, store)


async def test_one_that_reads_late_is_given_records_that_are_not_lost(
    server: Server, log: Log, store: SqliteStore, worker: Worker, dead: Consumer
) -> None:
    await worker.sweep()
    await log.append("acme", events(5))
    await take(dead)
    await until_applied(worker, store, 5)
    await log.append("acme", numbered(0, 2))
    late = await read(dead, 0, 100)
    assert [record.position for record in late.records] == [6, 7]

    await worker.run_to_end()
    await dead.release([Release("acme", 0)])

    assert positions_of(store) == [1, 2, 3, 4, 5, 6, 7]
    assert pending_of(server, store) == 0


async def test_one_that_gives_back_late_does_not_end_the_lease_of_another(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await worker.sweep()
    await log.append("acme", events(5))
    late, lease_owner = consumer_of(log, store, "late", 0.05), consumer_of(log, store, "holder", 30.0)
    await take(late)
    taken: list[str] = []
    async with asyncio.timeout(5):
        while not taken:
            taken = await take(lease_owner)

    await late.acknowledge([("acme", [b"1-0"])])
    await late.release([Release("acme", 5)])

    assert server.client.hget(leases_key(keys_of("acme").partition, group_of(store)), "acme") == b"holder"
    assert await take(consumer_of(log, store, "third")) == []


async def test_a_read_that_ran_out_of_time_loses_nothing(
    server: Server, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Proxy(server.socket) as proxy, Log(Connection(proxy.url, budget_seconds=0.2)) as log:
        worker = worker_of(log, store)
        await worker.sweep()
        await log.append("acme", events(5))
        read = worker._consumer.read

        async def into_a_black_hole(wanted: Sequence[ReadRequest]) -> dict[str, Delivery]:
            proxy.black_hole = True
            return await read(wanted)

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


# -- bounds --------------------------------------------------------------------------------------------------------------


async def test_a_turn_reads_about_as_much_as_it_may(log: Log, store: SqliteStore) -> None:
    tenants = [f"tenant-{i}" for i in range(150)]
    for tenant in tenants:
        await log.append(tenant, [event(session_id=f"S{i}", filler="x" * 16_000) for i in range(10)])
    batch_bytes = 1024 * 1024
    worker = worker_of(log, store, batch_bytes=batch_bytes, lease_seconds=30.0)
    read, sizes = worker._consumer.read, []

    async def measured(wanted: Sequence[ReadRequest]) -> dict[str, Delivery]:
        deliveries = await read(wanted)
        sizes.append(sum(len(record.body) for delivery in deliveries.values() for record in delivery.records))
        return deliveries

    worker._consumer.read = measured  # type: ignore[method-assign]
    await worker.run_to_end()  # the group is new to these logs: this one is filled from them
    for tenant in tenants:
        await log.append(tenant, [event(session_id=f"T{i}", filler="x" * 16_000) for i in range(10)])
    sizes.clear()
    await worker.run_to_end()

    assert all(checkpoint_of(store, tenant) == 20 for tenant in tenants)
    assert max(sizes) <= 4 * batch_bytes


async def test_taking_a_tenant_tells_how_large_its_newest_record_is(
    server: Server, log: Log, store: SqliteStore, dead: Consumer
) -> None:
    await dead.repair([])
    await log.append("small", [event(filler="x" * 60_000), event(session_id="S2")])
    await log.append("large", [event(session_id="S2"), event(filler="x" * 60_000)])
    await log.append("gone", [event()])
    server.client.xdel(keys_of("gone").log, "1-0")

    taken = await dead.lease(range(PARTITIONS), records=100)
    sizes = {one.tenant: one.newest_bytes for some in taken.values() for one in some}

    assert 200 < sizes["small"] < 1_000
    assert 60_000 < sizes["large"] < 61_000
    assert 0 < sizes["gone"] <= 200


async def test_a_gap_is_filled_in_batches_that_are_bounded_in_bytes(
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


@pytest.mark.usefixtures("often")
async def test_a_busy_projector_does_not_stop_to_truncate_the_wal(
    log: Log, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "SWEEP_SECONDS", 0)
    worker = worker_of(log, store, batch_records=50)
    await log.append("acme", numbered(0, 2_000))
    truncated: list[int] = []
    monkeypatch.setattr(store, "truncate_wal", lambda: truncated.append(checkpoint_of(store)))

    async with running(worker):
        await until(lambda: checkpoint_of(store) == 2_000 and 2_000 in truncated)

    assert set(truncated) == {0, 2_000}


async def test_a_flood_of_one_tenant_does_not_hold_back_another(log: Log, store: SqliteStore) -> None:
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


async def test_the_first_row_of_a_new_tenant_is_there_at_once(log: Log, store: SqliteStore, worker: Worker) -> None:
    waited = []
    async with running(worker):
        await log.append("warm", events(1))
        await until(lambda: checkpoint_of(store, "warm") == 1)
        for i in range(5):
            started = time.monotonic()
            await log.append(f"new-{i}", events(1))
            await until(lambda tenant=f"new-{i}": checkpoint_of(store, tenant) == 1)  # type: ignore[misc]
            waited.append(time.monotonic() - started)

    assert sorted(waited)[2] < 0.1


async def test_thousands_of_idle_tenants_cost_next_to_nothing(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await asyncio.gather(*(log.append(f"tenant-{i}", [event()]) for i in range(2_000)))
    await worker.run_to_end()

    async with running(worker):
        await asyncio.sleep(0.3)
        before = server.client.info("stats")["total_commands_processed"]
        await asyncio.sleep(1.0)  # what is counted is what happens in this time
        commands = server.client.info("stats")["total_commands_processed"] - before

    assert commands < 1_000


# -- the log lost something ----------------------------------------------------------------------------------------------


def destroy_group(server: Server, store: SqliteStore) -> None:
    server.client.xgroup_destroy(keys_of("acme").log, group_of(store))


def delete_log(server: Server, store: SqliteStore) -> None:
    server.client.delete(keys_of("acme").log)


def flush_all(server: Server, store: SqliteStore) -> None:
    server.client.flushall()


def restart_empty(server: Server, store: SqliteStore) -> None:
    server.kill()
    for file in server.folder.glob("appendonly*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    server.start()


async def test_a_group_destroyed_under_load_costs_no_record(own_server: Server, own_log: Log, store: SqliteStore) -> None:
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


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("disaster", [delete_log, flush_all, restart_empty])
async def test_a_log_that_was_lost_under_load_is_said_and_nothing_is_overwritten(
    own_server: Server, own_log: Log, store: SqliteStore, disaster: Any, caplog: pytest.LogCaptureFixture
) -> None:
    worker = worker_of(own_log, store)
    async with running(worker):
        await own_log.append("acme", numbered(0, 50))
        await own_log.append("globex", numbered(0, 50))
        await until(lambda: checkpoint_of(store) == checkpoint_of(store, "globex") == 50)
        before = rows_of(store, "SELECT * FROM events WHERE tenant_id = 'acme' ORDER BY position")
        disaster(own_server, store)
        await append_at_last(own_log, "acme", numbered(1_000, 10))
        await until(lambda: "of acme ends at position 10, its tables at 50" in caplog.text)
        await own_log.append("acme", numbered(2_000, 60))
        await own_log.append("initech", numbered(0, 5))
        await until(lambda: "acme holds another record at position 50" in caplog.text)
        await until(lambda: checkpoint_of(store, "initech") == 5)
        commands = own_server.client.info("stats")["total_commands_processed"]
        await asyncio.sleep(0.5)  # what is counted is what happens in this time
        commands = own_server.client.info("stats")["total_commands_processed"] - commands

    assert rows_of(store, "SELECT * FROM events WHERE tenant_id = 'acme' ORDER BY position") == before
    assert checkpoint_of(store) == 50
    assert commands < 1_000, "a stuck tenant is asked for again and again"
    with pytest.raises(RebuildRefused):
        await rebuild(own_log, store)


@pytest.mark.parametrize("more", [0, 1, 10])
async def test_a_server_that_lost_its_newest_records_is_said_and_nothing_is_overwritten(
    own_server: Server, own_log: Log, store: SqliteStore, more: int, caplog: pytest.LogCaptureFixture
) -> None:
    worker = worker_of(own_log, store)
    await own_log.append("acme", numbered(0, 6))
    file = max(own_server.folder.glob("**/*.aof"), key=lambda path: path.stat().st_mtime)
    kept = file.stat().st_size
    await own_log.append("acme", numbered(6, 4))
    await worker.run_to_end()
    before = rows_of(store, "SELECT * FROM events")
    own_server.kill()
    with file.open("r+b") as cut:
        cut.truncate(kept)
    own_server.start()
    await asyncio.sleep(0)  # so that the connections' end is heard
    await append_at_last(own_log, "acme", numbered(100, more))

    await worker.run_to_end()

    assert rows_of(store, "SELECT * FROM events") == before
    assert checkpoint_of(store) == 10
    if more < 4:
        assert f"the log of acme ends at position {6 + more}, its tables at 10" in caplog.text
        assert f"records {7 + more} to 10 are missing" in caplog.text
    else:
        assert "holds another record at position 10" in caplog.text
    with pytest.raises(RebuildRefused):
        await rebuild(own_log, store)


async def test_a_log_that_comes_back_goes_on(own_server: Server, own_log: Log, store: SqliteStore) -> None:
    worker = worker_of(own_log, store)
    async with running(worker):
        await own_log.append("acme", numbered(0, 20))
        await until(lambda: checkpoint_of(store) == 20)
        own_server.restart()
        await append_at_last(own_log, "acme", numbered(20, 20))
        await until(lambda: checkpoint_of(store) == 40)

    assert positions_of(store) == list(range(1, 41))


async def test_a_server_that_is_away_for_a_while_is_waited_for(own_server: Server, own_log: Log, store: SqliteStore) -> None:
    async with Log(Connection(own_server.url, budget_seconds=0.1)) as short:
        async with running(worker_of(short, store)) as task:
            await own_log.append("acme", numbered(0, 5))
            await until(lambda: checkpoint_of(store) == 5)
            own_server.kill()
            await asyncio.sleep(0.5)
            assert not task.done()
            own_server.start()
            await append_at_last(own_log, "acme", numbered(5, 5))
            await until(lambda: checkpoint_of(store) == 10)


# -- the tables lost something -------------------------------------------------------------------------------------------


async def test_yesterdays_database_put_back_becomes_what_the_log_says(server: Server, log: Log, tmp_path: Path) -> None:
    path, yesterday = tmp_path / "tables.db", tmp_path / "yesterday.db"
    with SqliteStore(str(path), cache_mib=8) as store:
        await worker_of(log, store).sweep()
        await log.append("acme", numbered(0, 300))
        await worker_of(log, store).run_to_end()
        with contextlib.closing(pysqlite3.connect(path)) as connection:
            connection.execute("VACUUM INTO ?", (str(yesterday),))
        await log.append("acme", numbered(300, 2_000))
        await log.append("globex", numbered(0, 5))
        await worker_of(log, store).run_to_end()
        today = [list(store.tables().rows(table, "acme", key)) for table, key in IN_ORDER.items()]

    with SqliteStore(str(yesterday), cache_mib=8) as store:
        assert checkpoint_of(store) == 300
        await worker_of(log, store).run_to_end()

        assert [list(store.tables().rows(table, "acme", key)) for table, key in IN_ORDER.items()] == today
        assert positions_of(store, "globex") == [1, 2, 3, 4, 5]
        assert pending_of(server, store) == 0
        await equal_to_the_log(log, store)
        await rebuild(log, store)
        assert [list(store.tables().rows(table, "acme", key)) for table, key in IN_ORDER.items()] == today


# -- a server whose memory is full ---------------------------------------------------------------------------------------


async def test_a_full_server_is_drained(own_server: Server, own_log: Log, store: SqliteStore) -> None:
    worker = worker_of(own_log, store)
    await worker.sweep()
    await own_log.append("acme", numbered(0, 500))
    await own_log.append("globex", numbered(0, 500))
    own_server.client.config_set("maxmemory", 1_000_000)

    async with asyncio.timeout(10):
        await worker.run_to_end()
    async with running(worker):
        await until(lambda: checkpoint_of(store) == checkpoint_of(store, "globex") == 500)
        await until(lambda: pending_of(own_server, store) == pending_of(own_server, store, "globex") == 0)
        own_server.client.config_set("maxmemory", 0)
        await own_log.append("acme", numbered(500, 5))
        await until(lambda: checkpoint_of(store) == 505)


@pytest.mark.usefixtures("often")
async def test_a_projector_that_meets_a_full_server_first_waits_and_does_not_die(
    own_server: Server, own_log: Log, store: SqliteStore
) -> None:
    await own_log.append("acme", numbered(0, 5))
    own_server.client.config_set("maxmemory", 1_000_000)

    stop = asyncio.Event()
    async with asyncio.timeout(10):
        task = asyncio.create_task(worker_of(own_log, store).run(stop))
        await asyncio.wait([task], timeout=0.3)
        assert not task.done()
        own_server.client.config_set("maxmemory", 0)
        await until(lambda: checkpoint_of(store) == 5)
        stop.set()
        await task
