"""A replay in processes gives the batches of a replay in this process."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from projector.live.worker import Worker
from projector.rebuild import replay
from projector.rebuild.batches import BATCH_BYTES, BATCH_RECORDS, CHUNK_BYTES, Span
from projector.rebuild.rebuild import rebuild
from projector.rebuild.verify import verify
from projector.store import LIVE, StoreUnavailable
from projector.store.sqlite import SqliteStore
from streams import Log
from streams.errors import Gap, LogUnavailable
from streams.log import PAGE_BYTES
from tests.support.events import event, events
from tests.support.proxy import until
from tests.support.servers import Server
from tests.support.tables import dump

pytestmark = pytest.mark.anyio

PROCESS_RECORDS = replay.PROCESS_RECORDS


@pytest.fixture(autouse=True)
def own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "PROCESS_RECORDS", 1)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """The folder for files of processes."""
    return str(tmp_path / "replay")


def child_processes() -> list[int]:
    """The replaying processes that this process started."""
    processes = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()[1]
                if parent == str(os.getpid()) and b"projector.rebuild" in (entry / "cmdline").read_bytes():
                    processes.append(int(entry.name))
            except OSError:
                continue
    return processes


async def test_tables_of_a_parallel_rebuild_equal_live_tables(log: Log, store: SqliteStore, worker: Worker) -> None:
    await log.append("large", events(BATCH_RECORDS + 2_000))  # its sessions span batches
    for tenant in ("acme", "beta", "gamma"):
        await log.append(tenant, events(1_500))
    await worker.run_to_end()
    before = dump(store)

    await rebuild(log, store)

    assert dump(store) == before
    assert [difference async for difference in verify(log, store)] == []
    assert child_processes() == []


async def test_a_replaying_process_names_a_gap(server: Server, log: Log, store: SqliteStore, folder: str) -> None:
    await log.append("acme", events(10))
    server.client.xdel(server.client.keys("*:log:acme")[0], "4-0")

    with pytest.raises(Gap) as raised:
        async for _ in replay.replay(log, [Span("acme", 0, 10)], folder):
            pass

    assert (raised.value.tenant, raised.value.first, raised.value.last) == ("acme", 4, 4)
    async for chunk in replay.replay(log, [Span("acme", 0, 10)], folder, accept_loss=True):
        store.write(LIVE, chunk)
    assert [row["position"] for row in store.tables().rows("events", "acme")] == [1, 2, 3, 5, 6, 7, 8, 9, 10]
    assert [row["position"] for row in store.tables().rows("quarantine", "acme")] == [4]


async def test_the_death_of_a_replaying_process_is_an_error(log: Log, folder: str) -> None:
    for _ in range(4):
        await log.append("acme", events(1_000))
        await log.connection.call("DEL", *await log.connection.call("KEYS", "*dedup*"))

    with pytest.raises(LogUnavailable, match="replaying process"):
        async for _ in replay.replay(log, [Span("acme", 0, 4_000)], folder):
            for process in child_processes():
                os.kill(process, signal.SIGKILL)
            await asyncio.sleep(0)


async def test_a_process_that_cannot_write_its_file_raises_an_error(
    log: Log, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log.append("acme", events(10))
    monkeypatch.setattr(os, "makedirs", lambda path: Path(path).parent.mkdir())  # as on a full or lost disk

    with pytest.raises(StoreUnavailable, match="unable to open"):
        async for _ in replay.replay(log, [Span("acme", 0, 10)], folder):
            pass

    assert child_processes() == []


async def test_a_cancelled_replay_leaves_no_process_and_no_file(log: Log, folder: str) -> None:
    await log.append("acme", events(1_000))
    chunks = replay.replay(log, [Span("acme", 0, 1_000)], folder)

    await anext(chunks)
    assert os.listdir(folder)
    await chunks.aclose()

    assert child_processes() == []
    assert not os.path.exists(folder)


async def test_late_duplicates_and_quarantine_are_rebuilt_as_they_were_live(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await log.append("acme", events(30))
    server.client.delete(*server.client.keys("*dedup*"))
    await log.append("acme", events(3))
    server.client.delete(*server.client.keys("*dedup*"))
    await log.append("acme", [event(session_id="S1", event_id="e", n=1)])
    server.client.delete(*server.client.keys("*dedup*"))
    await log.append("acme", [event(session_id="S2", event_id="e", n=2)])
    server.client.xadd(server.client.keys("*:log:acme")[0], {"event": "[]", "received_at_us": "7", "version": "1"}, id="36-0")
    await log.append("acme", [event(session_id="last")])
    await worker.run_to_end()
    before = dump(store)
    assert store.tables().checkpoint("acme").late_duplicates == 3
    assert len(list(store.tables().rows("quarantine", "acme"))) == 2

    await rebuild(log, store)

    assert dump(store) == before


async def test_chunks_are_bounded_in_bytes_and_hold_many_small_tenants(
    log: Log, store: SqliteStore, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "PROCESS_RECORDS", 10_000)  # in this process, where rows can be read
    await log.append("large", [event(session_id=f"S{i}", filler="x" * 60_000) for i in range(400)])
    tenants = [f"tenant-{i}" for i in range(300)]
    await asyncio.gather(*(log.append(tenant, events(1)) for tenant in tenants))
    spans = [Span("large", 0, 400), *(Span(tenant, 0, 1) for tenant in tenants)]

    chunks = [chunk async for chunk in replay.replay(log, spans, folder)]

    sizes = [sum(len(row.properties) for batch in chunk.batches for row in batch.rows) for chunk in chunks]
    assert max(sizes) <= CHUNK_BYTES + BATCH_BYTES + PAGE_BYTES
    assert len(chunks) <= 4
    assert sum(chunk.records for chunk in chunks) == 700


async def test_the_next_rebuild_removes_files_of_a_killed_rebuild(log: Log, store: SqliteStore, worker: Worker) -> None:
    await log.append("acme", events(3))
    await worker.run_to_end()
    Path(store.staging_folder, "0").mkdir(parents=True)
    Path(store.staging_folder, "0", "1").write_bytes(b"rows")

    await rebuild(log, store)

    assert not os.path.exists(store.staging_folder)


async def test_replaying_processes_end_when_their_rebuild_is_killed(
    server: Server, log: Log, store: SqliteStore, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the command starts processes itself
    for first in range(0, PROCESS_RECORDS + 10_000, 10_000):
        await log.append("acme", [event(session_id="S", event_id=f"e{i}") for i in range(first, first + 10_000)])
    environment = os.environ | {"REDIS_URL": server.url, "DATABASE_URL": f"sqlite:///{store.path}", "FAILPOINT": "during_rebuild"}
    command = [sys.executable, "-m", "projector", "rebuild"]

    killed = subprocess.run(command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, timeout=60)

    assert killed.returncode == 137
    await until(lambda: not processes_of(store))
    assert os.listdir(store.staging_folder)  # so processes had started


def processes_of(store: SqliteStore) -> list[str]:
    """The replaying processes of these tables, of any parent."""
    processes = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            has_these_tables = entry.name.isdigit() and store.path.encode() in (entry / "environ").read_bytes()
            if has_these_tables and b"projector.rebuild" in (entry / "cmdline").read_bytes():
                processes.append(entry.name)
    return processes


def test_processes_get_equal_shares() -> None:
    shares = replay._shares([Span("a", 0, 100), Span("b", 50, 90), Span("c", 0, 35), Span("d", 0, 30)])

    assert [sorted(span.tenant for span in share) for share in shares] == [["a"], ["b", "c", "d"]]
