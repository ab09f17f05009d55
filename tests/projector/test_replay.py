"""The replay gives the same batches from a process of its own as from this one, and its process never stays behind."""

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
    """Where processes put their files."""
    return str(tmp_path / "replay")


def replaying() -> list[int]:
    """The replaying processes that this one started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()[1]
                if parent == str(os.getpid()) and b"projector.rebuild" in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


async def test_tables_rebuilt_by_processes_equal_live_ones(log: Log, store: SqliteStore, worker: Worker) -> None:
    await log.append("large", events(BATCH_RECORDS + 2_000))  # its sessions go on from batch to batch
    for tenant in ("acme", "beta", "gamma"):
        await log.append(tenant, events(1_500))
    await worker.run_to_end()
    before = dump(store)

    await rebuild(log, store)

    assert dump(store) == before
    assert [difference async for difference in verify(log, store)] == []
    assert replaying() == []


async def test_a_hole_is_named_by_the_other_process_too(server: Server, log: Log, store: SqliteStore, folder: str) -> None:
    await log.append("acme", events(10))
    server.client.xdel(server.client.keys("*:log:acme")[0], "4-0")

    with pytest.raises(Gap) as caught:
        async for _ in replay.replay(log, [Span("acme", 0, 10)], folder):
            pass

    assert (caught.value.tenant, caught.value.first, caught.value.last) == ("acme", 4, 4)
    async for chunk in replay.replay(log, [Span("acme", 0, 10)], folder, accept_loss=True):
        store.write(LIVE, chunk)
    assert [row["position"] for row in store.tables().rows("events", "acme")] == [1, 2, 3, 5, 6, 7, 8, 9, 10]
    assert [row["position"] for row in store.tables().rows("quarantine", "acme")] == [4]


async def test_a_replaying_process_that_is_killed_is_said(log: Log, folder: str) -> None:
    for _ in range(4):
        await log.append("acme", events(1_000))
        await log.connection.call("DEL", *await log.connection.call("KEYS", "*dedup*"))

    with pytest.raises(LogUnavailable, match="replaying process"):
        async for _ in replay.replay(log, [Span("acme", 0, 4_000)], folder):
            for process in replaying():
                os.kill(process, signal.SIGKILL)
            await asyncio.sleep(0)


async def test_a_process_that_cannot_put_rows_into_files_says_so(log: Log, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await log.append("acme", events(10))
    monkeypatch.setattr(os, "makedirs", lambda path: Path(path).parent.mkdir())  # as a disk does that lost it, or is full

    with pytest.raises(StoreUnavailable, match="unable to open"):
        async for _ in replay.replay(log, [Span("acme", 0, 10)], folder):
            pass

    assert replaying() == []


async def test_a_replay_that_is_given_up_leaves_neither_process_nor_file_behind(log: Log, folder: str) -> None:
    await log.append("acme", events(1_000))
    chunks = replay.replay(log, [Span("acme", 0, 1_000)], folder)

    await anext(chunks)
    assert os.listdir(folder)
    await chunks.aclose()

    assert replaying() == []
    assert not os.path.exists(folder)


async def test_what_came_late_or_cannot_be_a_row_is_found_in_a_chunk_as_it_is_live(
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
    monkeypatch.setattr(replay, "PROCESS_RECORDS", 10_000)  # here, where rows can be looked at
    await log.append("large", [event(session_id=f"S{i}", filler="x" * 60_000) for i in range(400)])
    tenants = [f"tenant-{i}" for i in range(300)]
    await asyncio.gather(*(log.append(tenant, events(1)) for tenant in tenants))
    spans = [Span("large", 0, 400), *(Span(tenant, 0, 1) for tenant in tenants)]

    chunks = [chunk async for chunk in replay.replay(log, spans, folder)]

    sizes = [sum(len(row.properties) for batch in chunk.batches for row in batch.rows) for chunk in chunks]
    assert max(sizes) <= CHUNK_BYTES + BATCH_BYTES + PAGE_BYTES
    assert len(chunks) <= 4
    assert sum(chunk.records for chunk in chunks) == 700


async def test_what_a_killed_rebuild_left_goes_with_the_next(log: Log, store: SqliteStore, worker: Worker) -> None:
    await log.append("acme", events(3))
    await worker.run_to_end()
    Path(store.staging_folder, "0").mkdir(parents=True)
    Path(store.staging_folder, "0", "1").write_bytes(b"rows")

    await rebuild(log, store)

    assert not os.path.exists(store.staging_folder)


async def test_processes_end_with_the_rebuild_that_was_killed(
    server: Server, log: Log, store: SqliteStore, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # a command that starts processes by itself
    for begin in range(0, PROCESS_RECORDS + 10_000, 10_000):
        await log.append("acme", [event(session_id="S", event_id=f"e{i}") for i in range(begin, begin + 10_000)])
    environment = os.environ | {"REDIS_URL": server.url, "DATABASE_URL": f"sqlite:///{store.path}", "FAILPOINT": "during_rebuild"}
    command = [sys.executable, "-m", "projector", "rebuild"]

    killed = subprocess.run(command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, timeout=60)

    assert killed.returncode == 137
    await until(lambda: not of_rebuild(store))
    assert os.listdir(store.staging_folder)  # so there were some


def of_rebuild(store: SqliteStore) -> list[str]:
    """The processes, of whatever parent, that work for these tables."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            ours = entry.name.isdigit() and store.path.encode() in (entry / "environ").read_bytes()
            if ours and b"projector.rebuild" in (entry / "cmdline").read_bytes():
                found.append(entry.name)
    return found


def test_each_process_gets_about_as_much() -> None:
    shares = replay._shares([Span("a", 0, 100), Span("b", 50, 90), Span("c", 0, 35), Span("d", 0, 30)])

    assert [sorted(span.tenant for span in share) for share in shares] == [["a"], ["b", "c", "d"]]
