"""A vacuum rewrites the database file without deleted bytes."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from projector import StoreUnavailable
from projector.projection import project
from projector.store.sqlite import SqliteStore
from tests.support.records import record
from tests.support.tables import dump

MIB = 1024 * 1024
PEAK = """
import resource, sys
from projector.store.sqlite import SqliteStore
with SqliteStore(sys.argv[1], cache_mib=8) as store:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    store.vacuum()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def write(store: SqliteStore, tenant: str, position: int) -> None:
    store.apply([project(tenant, position, [record(position + 1, n=position, session_id=f"S{position}")], position + 1)])


def test_deleted_bytes_are_no_longer_in_the_file(store: SqliteStore) -> None:
    write(store, "acme", 0)
    store.execute("CREATE TABLE other (a)")
    store.execute("INSERT INTO other SELECT 'CANARY' || randomblob(20000) FROM events")
    store.truncate_wal()
    store.execute("DELETE FROM other")
    before = dump(store)
    assert b"CANARY" in Path(store.path).read_bytes()

    store.vacuum()

    assert dump(store) == before
    assert b"CANARY" not in Path(store.path).read_bytes() and os.path.getsize(f"{store.path}-wal") == 0
    assert sorted(os.listdir(Path(store.path).parent)) == ["tables.db", "tables.db-shm", "tables.db-wal"]


def test_writers_and_readers_lose_nothing_during_a_vacuum(store: SqliteStore) -> None:
    stop = threading.Event()
    written = [0, 0]

    def work(number: int) -> None:
        with SqliteStore(store.path, cache_mib=8) as other_store:
            while not stop.wait(0.001):
                write(other_store, f"tenant-{number}", written[number])
                written[number] += 1
                with other_store.reading() as connection:
                    counts = [connection.execute("SELECT count(*) FROM events").fetchone() for _ in range(2)]
                    assert counts[0] == counts[1] >= (sum(written) - 2,)

    with ThreadPoolExecutor(2) as pool:
        working = [pool.submit(work, number) for number in range(2)]
        vacuums = 0
        try:
            while vacuums < 8 or sum(written) <= 20:
                assert not any(future.done() for future in working), [future.exception() for future in working if future.done()]
                try:
                    store.vacuum()
                    vacuums += 1
                except StoreUnavailable as error:
                    assert "another process reads" in str(error)
        finally:
            stop.set()
        for future in working:
            future.result()

    assert len(dump(store)["events"]) == sum(written)
    assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("times", [1, 3, 100])
def test_rows_written_during_a_vacuum_are_kept(store: SqliteStore, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    write(store, "acme", 0)
    connect, written = store.connect, 1

    def write_then_connect(uri: str, cache_mib: int) -> object:
        nonlocal written
        if "rewritten.db" in uri and written <= times:
            with SqliteStore(store.path, cache_mib=8) as other_store:
                write(other_store, "acme", written)
            written += 1
        return connect(uri, cache_mib)

    monkeypatch.setattr(store, "connect", write_then_connect)
    if times < 10:
        store.vacuum()
    else:
        with pytest.raises(StoreUnavailable, match="other processes write"):
            store.vacuum()

    assert len(dump(store)["events"]) == written == min(times, 10) + 1
    write(store, "acme", written)
    assert not os.path.exists(store.staging_folder)


def test_a_killed_vacuum_changes_nothing_and_the_next_removes_its_copy(store: SqliteStore) -> None:
    write(store, "acme", 0)
    before = dump(store)
    environment = os.environ | {"FAILPOINT": "between_copy_and_back"}

    killed = subprocess.run([sys.executable, "-c", PEAK, store.path], env=environment)
    assert (killed.returncode, os.listdir(store.staging_folder)) == (137, ["rewritten.db"])
    store.vacuum()

    assert dump(store) == before
    assert not os.path.exists(store.staging_folder)


def test_a_vacuum_of_a_large_file_uses_little_memory(store: SqliteStore) -> None:
    store.execute("CREATE TABLE large (a)")
    for _ in range(40):
        store.execute("INSERT INTO large VALUES (zeroblob(?))", (4 * MIB,))
    store.execute("INSERT INTO large SELECT zeroblob(2000) FROM large, large AS other LIMIT 1000")

    process = subprocess.run([sys.executable, "-c", PEAK, store.path], check=True, capture_output=True, text=True)

    assert os.path.getsize(store.path) > 160 * MIB
    assert int(process.stdout) < 60
