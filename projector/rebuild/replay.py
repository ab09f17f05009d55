"""Replay: what logs say as chunks of batches, each tenant's in order.

By several processes when there is much of it.

To read, project and bind takes twice as long as to write, so processes of their own do it while this one writes.
"""

import asyncio
import contextlib
import heapq
import os
import shutil
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from projector.rebuild.batches import Span, gathered, read
from projector.rebuild.replay_process import FRAME_BYTES, Broken, Lost, Order, Unstored, decode_frame, encode
from projector.store import Chunk, StoreUnavailable
from streams import Log
from streams.errors import Gap, LogUnavailable

PROCESS_RECORDS = 50_000  # from here on, processes pay for their start
PROCESSES = 2
BUFFER_BYTES = 32 * 1024 * 1024
# Of a process: its threads take turns, so none needs memory of its own, and what is large goes back to the system.
LEAN = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "131072"}


async def replay(log: Log, spans: Sequence[Span], folder: str, *, accept_loss: bool = False) -> AsyncGenerator[Chunk, None]:
    """The chunks of spans of different tenants.

    Their files are in `folder`, which is made and removed here; to write a chunk removes its file. Raises Gap unless losses are
    accepted, LogUnavailable, StoreUnavailable.
    """
    if sum(span.through - span.after for span in spans) < PROCESS_RECORDS:
        async for batches in gathered(read(log, spans, accept_loss=accept_loss)):
            yield Chunk(batches)
        return
    shutil.rmtree(folder, ignore_errors=True)
    try:
        async with contextlib.aclosing(_by_processes(log, _shares(spans), folder, accept_loss)) as chunks:
            async for chunk in chunks:
                yield chunk
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _shares(spans: Sequence[Span]) -> list[list[Span]]:
    """The spans of each process, with about as many records in each."""
    shares: list[list[Span]] = [[] for _ in range(min(PROCESSES, len(spans)))]
    loads = [(0, number) for number in range(len(shares))]
    for span in sorted(spans, key=lambda span: span.after - span.through):
        records, number = loads[0]
        shares[number].append(span)
        heapq.heapreplace(loads, (records + span.through - span.after, number))
    return shares


async def _by_processes(log: Log, shares: Sequence[list[Span]], folder: str, accept_loss: bool) -> AsyncGenerator[Chunk, None]:
    """Chunks as they come, from one process for each share."""
    chunks: asyncio.Queue[Chunk | None] = asyncio.Queue()
    receiving = []
    try:
        for number, share in enumerate(shares):
            place = str(Path(folder, str(number)))
            order = Order(log.connection.url, log.archive_url, log.connection.budget_seconds, share, accept_loss, place)
            try:
                os.makedirs(order.folder)
            except OSError as error:
                raise StoreUnavailable(str(error)) from error
            receiving.append(asyncio.create_task(_receive(order, chunks)))
            receiving[-1].add_done_callback(lambda _: chunks.put_nowait(None))
        ended = 0
        while ended < len(receiving):
            chunk = await chunks.get()
            if chunk is not None:
                yield chunk
                continue
            ended += 1
            for task in receiving:
                if task.done():
                    task.result()
    finally:
        for task in receiving:
            task.cancel()
        await asyncio.gather(*receiving, return_exceptions=True)


async def _receive(order: Order, chunks: "asyncio.Queue[Chunk | None]") -> None:
    """Run a process and pass on its chunks. Raises the errors that it met."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "projector.rebuild", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        limit=BUFFER_BYTES, env=LEAN | os.environ,
    )  # fmt: skip
    assert child.stdin is not None and child.stdout is not None
    try:
        child.stdin.write(encode(order))
        child.stdin.write_eof()
        while size := await child.stdout.read(FRAME_BYTES):
            if len(size) < FRAME_BYTES:
                size += await child.stdout.readexactly(FRAME_BYTES - len(size))
            frame = decode_frame(await child.stdout.readexactly(int.from_bytes(size, "big")))
            if isinstance(frame, Lost):
                raise Gap(frame.tenant, frame.first, frame.last, frame.reason)
            if isinstance(frame, Broken):
                raise LogUnavailable(frame.reason)
            if isinstance(frame, Unstored):
                raise StoreUnavailable(frame.reason)
            chunks.put_nowait(frame.chunk)
        if status := await child.wait():
            raise LogUnavailable(f"the replaying process ended with status {status}")
    except asyncio.IncompleteReadError:
        raise LogUnavailable("the replaying process was ended") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
