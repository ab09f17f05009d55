"""The worker applies each record once, whatever was lost, paused or restored between two of its steps."""

import pytest

from projector import SqliteStore
from projector.worker import Worker
from streams import Log
from tests.events import event, events
from tests.servers import Server

pytestmark = pytest.mark.anyio


def rows(store: SqliteStore, what: str = "SELECT tenant_id, position FROM events ORDER BY 1, 2") -> list[tuple[object, ...]]:
    with store.reading() as connection:
        return connection.execute(what).fetchall()  # type: ignore[no-any-return]


async def test_what_was_appended_is_in_the_tables(log: Log, store: SqliteStore, worker: Worker) -> None:
    await log.append("acme", events(5))

    assert await worker.run_to_end() == 5

    assert rows(store) == [("acme", position) for position in range(1, 6)]
    assert rows(store, "SELECT session_id, event_count FROM event_sessions ORDER BY 1") == [("S0", 2), ("S1", 2), ("S2", 1)]


async def test_a_late_duplicate_is_counted_and_changes_nothing(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    first = event(session_id="S1")
    await log.append("acme", [first])
    await worker.run_to_end()
    server.client.delete(*server.client.keys("*:seen:*"))

    await log.append("acme", [first])
    await worker.run_to_end()

    assert rows(store) == [("acme", 1)]
    assert rows(store, "SELECT position, late_duplicates FROM checkpoints") == [(2, 1)]
    assert rows(store, "SELECT event_count FROM event_sessions") == [(1,)]
