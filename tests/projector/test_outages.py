"""A server that is away or full is waited for, and drained when it is back."""

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


async def test_a_full_server_is_drained(own_server: Server, own_log: Log, store: SqliteStore) -> None:
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


@pytest.mark.usefixtures("often")
async def test_a_projector_that_meets_a_full_server_first_waits_and_does_not_die(
    own_server: Server, own_log: Log, store: SqliteStore
) -> None:
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
