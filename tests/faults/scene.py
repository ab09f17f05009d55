"""What a fault works with, and the locks of the system's parts."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import pysqlite3

from tests.faults.clients import Client
from tests.faults.journal import Journal
from tests.faults.system import System
from tests.faults.watch import Watcher

SPINS = 50


class Scene(NamedTuple):
    """What a fault may change; parts that another fault uses are locked."""

    system: System
    journal: Journal
    watcher: Watcher
    clients: list[Client]
    rng: random.Random
    locks: dict[str, asyncio.Lock]

    @asynccontextmanager
    async def alone_with(self, parts: Iterable[str]) -> AsyncIterator[None]:
        """Hold parts of the system against other faults."""
        locks = [self.locks[part] for part in sorted(parts)]
        for lock in locks:
            await lock.acquire()
        try:
            yield
        finally:
            for lock in locks:
                lock.release()


@asynccontextmanager
async def write_lock(system: System) -> AsyncIterator[Any]:
    """Hold the lock that every writer of the tables needs."""
    connection = pysqlite3.connect(system.tables, timeout=0, isolation_level=None)
    try:
        while not connection.in_transaction:
            for _ in range(SPINS):  # more often than projectors, which try every 2 ms; asyncio cannot sleep for less than one
                with suppress(pysqlite3.OperationalError):
                    connection.execute("BEGIN IMMEDIATE")
                    break
                time.sleep(0.0001)
            await asyncio.sleep(0)
        yield connection
    finally:
        connection.close()
