"""A projector waits for a server that is down or full."""

import asyncio

import pytest

from projector.store.sqlite import SqliteStore
from streams import Connection, Log
from tests.support.events import numbered
from tests.support.logs import append_at_last
from tests.support.proxy import until
from tests.support.servers import Server
from tests.support.tables import checkpoint_of, positions_of
from tests.support.workers import pending_of, running, worker_of

pytestmark = pytest.mark.anyio


async def test_a_projector_continues_after_a_restart_of_the_server(own_server: Server, own_log: Log, store: SqliteStore) -> None:
    worker = worker_of(own_log, store)
    async with running(worker):
        await own_log.append("acme", numbered(0, 20))
        await until(lambda: checkpoint_of(store) == 20)
        own_server.restart()
        await append_at_last(own_log, "acme", numbered(20, 20))
        await until(lambda: checkpoint_of(store) == 40)

    assert positions_of(store) == list(range(1, 41))


async def test_a_projector_waits_for_a_server_that_is_down(own_server: Server, own_log: Log, store: SqliteStore) -> None:
    async with Log(Connection(own_server.url, budget_seconds=0.1)) as impatient_log:
        async with running(worker_of(impatient_log, store)) as task:
            await own_log.append("acme", numbered(0, 5))
            await until(lambda: checkpoint_of(store) == 5)
            own_server.kill()
            await asyncio.sleep(0.5)
            assert not task.done()
            own_server.start()
            await append_at_last(own_log, "acme", numbered(5, 5))
            await until(lambda: checkpoint_of(store) == 10)


async def test_a_projector_applies_the_records_of_a_full_server(own_server: Server, own_log: Log, store: SqliteStore) -> None:
    worker = worker_of(own_log, store)
    await worker.sweep()
    await own_log.append("acme", numbered(0, 500))
    await own_log.append("globex", numbered(0, 500))
    own_server.client.config_set("maxmemory", 1_000_000)

    async with asyncio.timeout(60):
        await worker.run_to_end()
    async with running(worker):
        await until(lambda: checkpoint_of(store) == checkpoint_of(store, "globex") == 500)
        await until(lambda: pending_of(own_server, store) == pending_of(own_server, store, "globex") == 0)
        own_server.client.config_set("maxmemory", 0)
        await own_log.append("acme", numbered(500, 5))
        await until(lambda: checkpoint_of(store) == 505)


@pytest.mark.usefixtures("frequent_sweeps")
async def test_a_projector_that_starts_on_a_full_server_waits(own_server: Server, own_log: Log, store: SqliteStore) -> None:
    await own_log.append("acme", numbered(0, 5))
    own_server.client.config_set("maxmemory", 1_000_000)

    stop = asyncio.Event()
    async with asyncio.timeout(60):
        task = asyncio.create_task(worker_of(own_log, store).run(stop))
        await asyncio.wait([task], timeout=0.3)
        assert not task.done()
        own_server.client.config_set("maxmemory", 0)
        await until(lambda: checkpoint_of(store) == 5)
        stop.set()
        await task
