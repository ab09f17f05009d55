"""A loss of power or a full disk takes nothing that was accepted.

Needs strace, and the right to mount a tmpfs.
"""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams import Connection, Event, Log
from streams.errors import LogFull, LogRefused, LogUnavailable
from tests.support.events import event
from tests.support.logs import position_of
from tests.support.needs import needs
from tests.support.servers import BINARIES, Server

pytestmark = pytest.mark.anyio

WRITTEN = re.compile(r"\bwrite\(.*= (\d+)$")
SYNCED = re.compile(r"\bf(?:data)?sync\(.*= 0$")


class TracedServer(Server):
    """A server under strace, which shows what was on disk at any moment."""

    def start_traced(self) -> None:
        self.start()  # makes the file
        self.stop()
        [self.file] = [
            path
            for path in self.folder.rglob("*")
            if re.search(r"appendonly\.aof(\..*incr\.aof)?$", path.name) and path.is_file()
        ]
        self.begin_bytes = self.file.stat().st_size
        self.trace = self.folder / "trace"
        binary = self.binary
        self.binary = str(self.folder / "traced")
        Path(self.binary).write_text(
            f'#!/bin/sh\nexec strace -f -P {self.file} -e trace=write,fsync,fdatasync -e signal=none -s 0 -o {self.trace} {binary} "$@"\n'
        )
        Path(self.binary).chmod(0o755)
        self.start()
        self.binary = binary

    def lose_power(self) -> None:
        """End the server, and cut its file to what was on disk."""
        os.kill(self.client.info("server")["process_id"], signal.SIGKILL)
        assert self.process is not None
        self.process.wait()
        written = synced = self.begin_bytes
        for line in self.trace.read_text().splitlines():
            if write := WRITTEN.search(line):
                written += int(write[1])
            elif SYNCED.search(line):
                synced = written
        os.truncate(self.file, synced)


@pytest.fixture(params=sorted(BINARIES))
def traced(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TracedServer]:
    needs(shutil.which("strace") is not None, "strace")
    server = TracedServer(request.param, tmp_path / "server")
    yield server
    server.stop()


async def accepted_until_power_is_lost(server: TracedServer) -> set[int]:
    """The positions that were accepted under load until the loss of power."""
    accepted: set[int] = set()

    async def keep_posting(log: Log, client: int) -> None:
        for number in range(10_000):
            try:
                [receipt] = await log.append("acme", [event(session_id=f"{client}", n=number, event_id=f"{client}.{number}")])
            except LogUnavailable:
                return
            accepted.add(position_of(receipt))

    async with Log(Connection(server.url, budget_seconds=1.0)) as log:
        clients = [asyncio.create_task(keep_posting(log, client)) for client in range(8)]
        while len(accepted) < 400:
            await asyncio.sleep(0.01)
        server.lose_power()
        await asyncio.gather(*clients)
    return accepted


async def held(server: Server) -> set[int]:
    async with Log(Connection(server.url)) as log:
        return {record.position async for page in log.read("acme", 0) for record in page}


async def test_power_loss_takes_nothing_that_was_accepted(traced: TracedServer) -> None:
    traced.start_traced()

    accepted = await accepted_until_power_is_lost(traced)
    traced.start()

    assert accepted <= await held(traced)


async def test_power_loss_under_everysec_takes_the_last_second(traced: TracedServer) -> None:
    """The test before can fail; and what DURABILITY=everysec gives up."""
    traced.options = ("--appendfsync", "everysec")
    traced.start_traced()

    accepted = await accepted_until_power_is_lost(traced)
    traced.start()
    kept = await held(traced)

    assert accepted - kept
    assert kept == set(range(1, len(kept) + 1)), "what is kept is the log's beginning, without a gap"


async def test_a_full_disk_is_reported_and_takes_nothing_that_was_accepted() -> None:
    needs(os.geteuid() == 0 and sys.platform == "linux", "the right to mount a tmpfs")
    with tempfile.TemporaryDirectory(prefix="pd-") as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], check=True)
        environment = os.environ | {"DATA_DIR": folder, "REDIS_URL": ""}
        serve = subprocess.Popen([sys.executable, "-m", "streams", "serve"], env=environment, stdout=subprocess.DEVNULL)
        try:
            async with Log(Connection(f"unix://{folder}/server.sock", budget_seconds=5)) as log:
                accepted: dict[str, int] = {}
                refused = await append_until_refused(log, accepted)

                subprocess.run(["mount", "-o", "remount,size=64m", folder], check=True)
                again = await append_until_accepted(log, refused)

                kept = {record.position: record.body async for page in log.read("acme", 0) for record in page}
        finally:
            serve.terminate()
            serve.wait()
            subprocess.run(["umount", folder], check=True)

    assert len(accepted) > 50
    assert all(f'"event_id":"{name}"'.encode() in kept[position] for name, position in accepted.items())
    assert again in kept


async def append_until_refused(log: Log, accepted: dict[str, int]) -> Event:
    for number in range(1_000):
        large = event(event_id=f"e{number}", fill="x" * 50_000)
        try:
            [receipt] = await log.append("acme", [large])
        except (LogUnavailable, LogRefused, LogFull):
            return large
        accepted[f"e{number}"] = position_of(receipt)
    raise AssertionError("the disk was never full")


async def append_until_accepted(log: Log, refused: Event) -> int:
    for _ in range(60):
        try:
            [receipt] = await log.append("acme", [refused])
            return position_of(receipt)
        except (LogUnavailable, LogRefused):
            await asyncio.sleep(0.5)
    raise AssertionError("the server did not come back")
