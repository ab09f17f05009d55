"""A log that lost records is reported, and no row is overwritten."""

import asyncio
import contextlib
import shutil
from pathlib import Path
from typing import Any

import pysqlite3
import pytest

from projector.rebuild.rebuild import RebuildRefused, rebuild
from projector.store.sqlite import SqliteStore
from streams import Log, keys_of
from tests.support.events import numbered
from tests.support.logs import append_at_last
from tests.support.proxy import until
from tests.support.servers import Server
from tests.support.tables import checkpoint_of, positions_of, rows_of
from tests.support.workers import equal_to_the_log, pending_of, running, worker_of

pytestmark = pytest.mark.anyio


TABLES_BY_POSITION = {"events": "position", "event_sessions": "first_position", "checkpoints": "position"}


def delete_log(server: Server, store: SqliteStore) -> None:
    server.client.delete(keys_of("acme").log)


def flush_all(server: Server, store: SqliteStore) -> None:
    server.client.flushall()


def restart_empty(server: Server, store: SqliteStore) -> None:
    server.kill()
    for file in server.folder.glob("appendonly*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    server.start()


@pytest.mark.usefixtures("frequent_sweeps")
@pytest.mark.parametrize("disaster", [delete_log, flush_all, restart_empty])
async def test_a_log_lost_under_load_is_reported_and_no_row_is_overwritten(
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
        await asyncio.sleep(0.5)  # commands are counted during this time
        commands = own_server.client.info("stats")["total_commands_processed"] - commands

    assert rows_of(store, "SELECT * FROM events WHERE tenant_id = 'acme' ORDER BY position") == before
    assert checkpoint_of(store) == 50
    assert commands < 1_000, "a stuck tenant is read again and again"
    with pytest.raises(RebuildRefused):
        await rebuild(own_log, store)


@pytest.mark.parametrize("new_records", [0, 1, 10])
async def test_a_server_that_lost_its_newest_records_is_reported_and_no_row_is_overwritten(
    own_server: Server, own_log: Log, store: SqliteStore, new_records: int, caplog: pytest.LogCaptureFixture
) -> None:
    worker = worker_of(own_log, store)
    await own_log.append("acme", numbered(0, 6))
    file = max(own_server.folder.glob("**/*.aof"), key=lambda path: path.stat().st_mtime)
    size_bytes = file.stat().st_size
    await own_log.append("acme", numbered(6, 4))
    await worker.run_to_end()
    before = rows_of(store, "SELECT * FROM events")
    own_server.kill()
    with file.open("r+b") as log_file:
        log_file.truncate(size_bytes)
    own_server.start()
    await asyncio.sleep(0)  # so that the closed connections are noticed
    await append_at_last(own_log, "acme", numbered(100, new_records))

    await worker.run_to_end()

    assert rows_of(store, "SELECT * FROM events") == before
    assert checkpoint_of(store) == 10
    if new_records < 4:
        assert f"the log of acme ends at position {6 + new_records}, its tables at 10" in caplog.text
        assert f"records {7 + new_records} to 10 are missing" in caplog.text
    else:
        assert "holds another record at position 10" in caplog.text
    with pytest.raises(RebuildRefused):
        await rebuild(own_log, store)


async def test_an_older_database_catches_up_with_the_log(server: Server, log: Log, tmp_path: Path) -> None:
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
        today = [list(store.tables().rows(table, "acme")) for table, key in TABLES_BY_POSITION.items()]

    with SqliteStore(str(yesterday), cache_mib=8) as store:
        assert checkpoint_of(store) == 300
        await worker_of(log, store).run_to_end()

        assert [list(store.tables().rows(table, "acme")) for table, key in TABLES_BY_POSITION.items()] == today
        assert positions_of(store, "globex") == [1, 2, 3, 4, 5]
        assert pending_of(server, store) == 0
        await equal_to_the_log(log, store)
        await rebuild(log, store)
        assert [list(store.tables().rows(table, "acme")) for table, key in TABLES_BY_POSITION.items()] == today
