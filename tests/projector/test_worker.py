"""The worker applies each record once, also after the tables change."""

import contextlib
from pathlib import Path

import pysqlite3
import pytest

from projector.live.worker import Worker
from projector.store.sqlite import SqliteStore
from streams import Log
from tests.support.events import event, events
from tests.support.http import process_of
from tests.support.proxy import until
from tests.support.servers import Server

pytestmark = pytest.mark.anyio


def rows(store: SqliteStore, what: str = "SELECT tenant_id, position FROM events ORDER BY 1, 2") -> list[tuple[object, ...]]:
    with store.reading() as connection:
        return connection.execute(what).fetchall()  # type: ignore[no-any-return]


async def test_appended_events_are_in_the_tables(log: Log, store: SqliteStore, worker: Worker) -> None:
    await log.append("acme", events(5))

    assert await worker.run_to_end() == 5

    assert rows(store) == [("acme", position) for position in range(1, 6)]
    assert rows(store, "SELECT session_id, event_count FROM event_sessions ORDER BY 1") == [("S0", 2), ("S1", 2), ("S2", 1)]


async def test_a_late_duplicate_is_counted_and_changes_no_row(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    first = event(session_id="S1")
    await log.append("acme", [first])
    await worker.run_to_end()
    server.client.delete(*server.client.keys("*:dedup:*"))

    await log.append("acme", [first])
    await worker.run_to_end()

    assert rows(store) == [("acme", 1)]
    assert rows(store, "SELECT position, late_duplicates FROM checkpoints") == [(2, 1)]
    assert rows(store, "SELECT event_count FROM event_sessions") == [(1,)]


@pytest.mark.parametrize("how", ["removed", "replaced by an older copy", "replaced slowly"])
async def test_a_projector_continues_in_a_database_that_was_replaced(server: Server, log: Log, tmp_path: Path, how: str) -> None:
    path, yesterday = tmp_path / "tables.db", tmp_path / "yesterday.db"
    settings = {"REDIS_URL": server.url, "DATABASE_URL": f"sqlite:///{path}"}
    with process_of(("-m", "projector", "run"), tmp_path, "first.log", **settings):
        with process_of(("-m", "projector", "run"), tmp_path, "second.log", **settings):
            await until(lambda: logged_by_both(tmp_path, " applies "))
            await log.append("acme", events(5))
            await until(lambda: count_in(path) == 5)
            with contextlib.closing(pysqlite3.connect(path)) as connection:
                connection.execute("VACUUM INTO ?", (str(yesterday),))

            for file in tmp_path.glob("tables.db*"):
                file.unlink()
            if how == "replaced slowly":
                path.write_bytes(yesterday.read_bytes()[:9_000])  # as during `cp`
                await until(lambda: logged_by_both(tmp_path, "malformed"))
            if how != "removed":
                yesterday.rename(path)
            await log.append("acme", [event(session_id="later", n=i, event_id=str(i)) for i in range(5)])

            await until(lambda: count_in(path) == 10)
            await until(lambda: logged_by_both(tmp_path, "another was put in its place"))


def logged_by_both(folder: Path, text: str) -> bool:
    return all(text in (folder / f"{name}.log").read_text() for name in ("first", "second"))


def count_in(path: Path) -> int:
    """The number of events in the database at a path."""
    with contextlib.suppress(pysqlite3.OperationalError):
        with contextlib.closing(pysqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM events").fetchone()[0])
    return 0
