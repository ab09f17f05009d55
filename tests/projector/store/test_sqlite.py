"""The SQLite store serves many writers and readers at once."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pysqlite3
import pytest

from projector import StoreUnavailable
from projector.projection import project
from projector.store import path_of
from projector.store.errors import StoreReplaced
from projector.store.sqlite import SqliteStore
from projector.store.sqlite.file_store import SAFE_VERSION
from tests.support.clock import stopwatch
from tests.support.records import record
from tests.support.tables import dump


def test_the_sqlite_in_use_cannot_corrupt_a_wal(store: SqliteStore) -> None:
    assert pysqlite3.sqlite_version_info >= SAFE_VERSION
    assert store.warnings() == []


def test_four_writers_at_once_get_no_error(tmp_path: Path) -> None:
    path = str(tmp_path / "tables.db")
    program = (
        "import sys; from projector import open_store; from projector.projection import project; "
        "from tests.support.records import record\n"
        "with open_store(sys.argv[1]) as store:\n"
        "    for i in range(60):\n"
        "        store.apply([project(sys.argv[2], i, [record(i + 1, n=i, session_id=str(i))], i + 1)])\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, f"sqlite:///{path}", f"tenant-{i}"]) for i in range(4)]

    assert [writer.wait() for writer in writers] == [0, 0, 0, 0]

    with SqliteStore(path) as store:
        assert len(dump(store)["events"]) == 240


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_nothing_is_written_to_a_file_that_was_removed_or_replaced(store: SqliteStore, how: str) -> None:
    Path(store.path).unlink()
    if how == "replaced":
        Path(store.path).touch()

    with pytest.raises(StoreReplaced):
        store.apply([project("acme", 0, [record(1)], 1)])


def test_a_file_that_is_no_database_can_be_replaced_by_a_database(store: SqliteStore) -> None:
    path = Path(store.path)
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()
    path.write_bytes(b"no database" * 1_000)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            store.reopen()
        with pytest.raises(StoreUnavailable), store.reading() as connection:
            connection.execute("SELECT 1 FROM checkpoints")
        with pytest.raises(StoreReplaced), store.transaction():
            pass
    path.unlink()
    with pytest.raises(StoreReplaced):
        store.reopen()
    with SqliteStore(store.path, cache_mib=8):
        store.reopen()

    assert store.apply([project("acme", 0, [record(1)], 1)]) == [True]
    assert len(dump(store)["events"]) == 1


def test_a_file_is_opened_while_another_connection_writes(store: SqliteStore) -> None:
    with stopwatch() as watch:
        with store.transaction(), SqliteStore(store.path, busy_seconds=5.0) as other:
            assert other.tables().checkpoints() == {}
        assert watch.seconds < 4


def test_a_row_that_a_constraint_refuses_goes_to_quarantine_alone(store: SqliteStore) -> None:
    with store.transaction():
        store._connection.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON events WHEN new.session_id = 'bad' BEGIN SELECT raise(ABORT, 'not this'); END"
        )

    log = [record(1, n=1), record(2, n=2, session_id="bad"), record(3, n=3, session_id="S3")]
    store.apply([project("acme", 0, log, 3)])

    tables = dump(store)
    assert [row[1] for row in tables["events"]] == [1, 3]
    assert [(row[1], row[4], row[5]) for row in tables["quarantine"]] == [(2, "invalid", "IntegrityError: not this")]


def test_any_reader_may_open_the_file_during_a_write(store: SqliteStore) -> None:
    """Reads with the SQLite of the system, in another process.

    Two SQLite libraries in the same process release each other's locks.
    """
    code = (
        "import sqlite3, sys; db = sqlite3.connect(f'file:{sys.argv[1]}?mode=ro', uri=True); "
        "print(db.execute('SELECT event_type, timestamp_utc FROM events ORDER BY position').fetchall())"
    )
    store.apply([project("acme", 0, [record(1)], 1)])

    with store.transaction():
        store.tables().apply(project("acme", 1, [record(2, n=2, session_id="S2")], 2))
        printed = subprocess.run([sys.executable, "-c", code, store.path], capture_output=True, text=True, check=True).stdout

    assert printed == "[('page_view', '2026-01-01T10:00:00.000000Z')]\n"


def test_a_writer_waits_for_the_lock_and_raises_after_a_time_limit(store: SqliteStore) -> None:
    store._busy_seconds = 0.2
    blocker = pysqlite3.connect(store.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")

    with pytest.raises(StoreUnavailable, match="locked"):
        store.apply([project("acme", 0, [record(1)], 1)])
    blocker.execute("ROLLBACK")

    assert store.apply([project("acme", 0, [record(1)], 1)]) == [True]


def test_a_read_that_takes_too_long_is_interrupted(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projector.store.sqlite.connection.READ_SECONDS", 0.05)
    started = time.monotonic()

    with pytest.raises(StoreUnavailable, match="interrupted"), store.reading() as connection:
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500000000) SELECT sum(i) FROM n"
        ).fetchone()

    assert time.monotonic() - started < 5


def test_the_wal_of_a_projector_without_lag_stays_at_a_few_megabytes(store: SqliteStore) -> None:
    for position in range(600):
        store.apply([project("acme", position, [record(position + 1, n=position, session_id=f"S{position}")], position + 1)])

    assert os.path.getsize(f"{store.path}-wal") < 6 * 1024 * 1024


def test_an_idle_store_truncates_the_wal(store: SqliteStore) -> None:
    for i in range(50):
        store.apply([project("acme", i, [record(i + 1, n=i, session_id=str(i), text="x" * 5_000)], i + 1)])
    wal = f"{store.path}-wal"
    assert os.path.getsize(wal) > 100_000

    store.truncate_wal()

    assert os.path.getsize(wal) == 0


def test_the_wal_is_truncated_after_a_long_read(store: SqliteStore) -> None:
    with store.reading() as connection:
        connection.execute("SELECT count(*) FROM events").fetchone()
        store.apply([project("acme", 0, [record(1, text="x" * 5_000)], 1)])
        store.truncate_wal()  # refused by the reader, and no error
        assert os.path.getsize(f"{store.path}-wal") > 0

    store.truncate_wal()

    assert os.path.getsize(f"{store.path}-wal") == 0


def test_the_cache_of_a_new_file_uses_the_memory_that_is_set(tmp_path: Path) -> None:
    program = (
        "import re, sys; from projector.store.sqlite import SqliteStore\n"
        "def resident(): return int(re.search(r'RssAnon:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "with SqliteStore(sys.argv[1], cache_mib=16) as store:\n"
        "    before = resident()\n"
        "    store.execute('CREATE TABLE filler (body)')\n"
        "    with store.transaction():\n"
        "        many = 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 8000)'\n"
        "        store.execute(f'INSERT INTO filler {many} SELECT randomblob(7000) FROM n')\n"
        "    print((resident() - before) // 1024)\n"
    )

    process = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "new.db")], capture_output=True, text=True, check=True
    )

    assert 12 <= int(process.stdout) <= 22  # MiB; the file has 56


def test_processes_may_create_the_same_database_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new/tables.db"
    program = "import sys; from projector import open_store\nwith open_store(sys.argv[1]) as store: print(store.tables_id)"
    processes = [
        subprocess.Popen([sys.executable, "-c", program, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(5)
    ]

    outputs = [process.communicate() for process in processes]

    assert [error for _, error in outputs] == [b""] * 5
    assert len({identity for identity, _ in outputs}) == 1
    with SqliteStore(path_of(url)) as store:
        assert dump(store)["events"] == []


def test_threads_that_end_leave_no_file_open(store: SqliteStore) -> None:
    def read() -> None:
        with store.reading() as connection:
            connection.execute("SELECT count(*) FROM events").fetchone()

    def threads(count: int) -> int:
        for _ in range(count):
            thread = threading.Thread(target=read)
            thread.start()
            thread.join()
        return len(os.listdir("/proc/self/fd"))

    assert threads(1) >= threads(30)
