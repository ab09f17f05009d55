"""The replay gives the same batches from a process of its own as from this one, and its process never stays behind."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from projector import SqliteStore, replay
from projector.rebuild import rebuild
from projector.replay import Span
from projector.verify import verify
from projector.worker import Worker
from streams import Hole, Log, LogUnavailable
from tests.events import events
from tests.servers import Server
from tests.test_projection import dump

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "PROCESS_RECORDS", 1)


def replaying() -> list[int]:
    """The replaying processes that this one started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()[1]
                if parent == str(os.getpid()) and b"projector.replay" in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


async def test_tables_rebuilt_by_two_processes_equal_live_ones(log: Log, store: SqliteStore, worker: Worker) -> None:
    for tenant in ("acme", "beta"):
        await log.append(tenant, events(1_500))
    await worker.run_to_end()
    before = dump(store)

    await rebuild(log, store)

    assert dump(store) == before
    assert [difference async for difference in verify(log, store)] == []
    assert replaying() == []


async def test_a_hole_is_named_by_the_other_process_too(server: Server, log: Log) -> None:
    await log.append("acme", events(10))
    server.client.xdel(server.client.keys("*:log:acme")[0], "4-0")

    with pytest.raises(Hole) as caught:
        async for _ in replay.replay(log, [Span("acme", 0, 10)]):
            pass

    assert (caught.value.tenant, caught.value.first, caught.value.last) == ("acme", 4, 4)
    batches = [batch async for batch in replay.replay(log, [Span("acme", 0, 10)], accept_loss=True)]
    assert [row.position for batch in batches for row in batch.rows] == [1, 2, 3, 5, 6, 7, 8, 9, 10]
    assert [row.position for batch in batches for row in batch.quarantined] == [4]


async def test_a_replaying_process_that_is_killed_is_said(log: Log) -> None:
    for _ in range(4):
        await log.append("acme", events(1_000))
        await log.wire.call("DEL", *await log.wire.call("KEYS", "*seen*"))

    with pytest.raises(LogUnavailable, match="replaying process"):
        async for _ in replay.replay(log, [Span("acme", 0, 4_000)]):
            for process in replaying():
                os.kill(process, signal.SIGKILL)
            await asyncio.sleep(0)


async def test_a_replay_that_is_given_up_leaves_no_process_behind(log: Log) -> None:
    await log.append("acme", events(1_000))
    batches = replay.replay(log, [Span("acme", 0, 1_000)])

    await anext(batches)
    await batches.aclose()

    assert replaying() == []
