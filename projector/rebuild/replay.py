"""Replay: what logs say as chunks of batches, each tenant's in order; by processes of their own when there is much of it.

To read, project and bind takes twice as long as to write, so other processors do it while this one writes. `python -m
projector.rebuild.replay` is such a process: an order on its standard input, chunks on its standard output, their rows in files.
"""

import asyncio
import contextlib
import gc
import heapq
import os
import shutil
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path

import msgspec
import uvloop

from projector.projection import Batch, project
from projector.store import Chunk, StoreUnavailable, stage_rows
from streams import Connection, Log, Record
from streams.errors import Gap, LogUnavailable

PROCESS_RECORDS = 50_000  # from here on, processes pay for their start
PROCESSES = 2
BATCH_RECORDS = 5_000  # of one tenant: many small batches would look the same sessions up many times
BATCH_BYTES = 4 * 1024 * 1024
CHUNK_RECORDS = 10_000
CHUNK_BYTES = 8 * 1024 * 1024
FILES_AHEAD = 3  # of a process
PAUSE_SECONDS = 0.002
BUFFER_BYTES = 32 * 1024 * 1024
FRAME_BYTES = 4
# Of a process: its threads take turns, so none needs memory of its own, and what is large goes back to the system.
LEAN = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "131072"}


class Span(msgspec.Struct, frozen=True):
    """What to replay of a tenant: positions `after` + 1 to `through`; with `before_us`, only those before the first record that
    was received then or later. Times of receipt need not rise from record to record, so one behind that may be earlier."""

    tenant: str
    after: int
    through: int
    before_us: int | None = None


class Order(msgspec.Struct, frozen=True):
    """What a replaying process is told; its files are `folder`/1, 2, 3, …"""

    url: str
    archive_url: str
    budget_seconds: float
    spans: list[Span]
    accept_loss: bool
    folder: str


class Lost(msgspec.Struct, frozen=True, tag=True):
    """A hole, on its way between processes."""

    tenant: str
    first: int
    last: int
    reason: str


class Broken(msgspec.Struct, frozen=True, tag=True):
    """That the log could not be read, on its way between processes."""

    reason: str


class Unstored(msgspec.Struct, frozen=True, tag=True):
    """That rows could not be put into a file, on its way between processes."""

    reason: str


class Read(msgspec.Struct, frozen=True, tag=True):
    """A chunk, on its way between processes."""

    chunk: Chunk


Frame = Read | Lost | Broken | Unstored
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Frame).decode


async def replay(log: Log, spans: Sequence[Span], folder: str, *, accept_loss: bool = False) -> AsyncGenerator[Chunk, None]:
    """The chunks of some spans, of different tenants. Whoever writes one removes its file, which is in `folder`; that is
    made anew and removed here. Raises Gap unless losses are accepted, LogUnavailable, StoreUnavailable."""
    if sum(span.through - span.after for span in spans) < PROCESS_RECORDS:
        async for batches in _gathered(read(log, spans, accept_loss=accept_loss)):
            yield Chunk(batches)
        return
    shutil.rmtree(folder, ignore_errors=True)
    try:
        async with contextlib.aclosing(_by_processes(log, _shares(spans), folder, accept_loss)) as chunks:
            async for chunk in chunks:
                yield chunk
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def read(log: Log, spans: Sequence[Span], *, accept_loss: bool) -> AsyncIterator[Batch]:
    """The batches of some spans, in order, read and projected here."""
    for span in spans:
        async for batch in _read(log, span, accept_loss):
            yield batch


def _shares(spans: Sequence[Span]) -> list[list[Span]]:
    """Spans for each process, about as many records in each."""
    shares: list[list[Span]] = [[] for _ in range(min(PROCESSES, len(spans)))]
    loads = [(0, number) for number in range(len(shares))]
    for span in sorted(spans, key=lambda span: span.after - span.through):
        records, number = loads[0]
        shares[number].append(span)
        heapq.heapreplace(loads, (records + span.through - span.after, number))
    return shares


async def _by_processes(log: Log, shares: Sequence[list[Span]], folder: str, accept_loss: bool) -> AsyncGenerator[Chunk, None]:
    """Chunks as they come from a process for each share."""
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
    """Run a process and pass on its chunks. Raises what it met."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "projector.rebuild.replay", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        limit=BUFFER_BYTES, env=LEAN | os.environ,
    )  # fmt: skip
    assert child.stdin is not None and child.stdout is not None
    try:
        child.stdin.write(_encode(order))
        child.stdin.write_eof()
        while size := await child.stdout.read(FRAME_BYTES):
            if len(size) < FRAME_BYTES:
                size += await child.stdout.readexactly(FRAME_BYTES - len(size))
            frame = _decode(await child.stdout.readexactly(int.from_bytes(size, "big")))
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


async def _read(log: Log, span: Span, accept_loss: bool) -> AsyncIterator[Batch]:
    """The batches of one span."""
    position, through = span.after, span.through
    while position < through:
        records: list[Record] = []
        size = 0
        lost: Gap | None = None
        try:
            async for page in log.read(span.tenant, position, through=through):
                kept = _received_before(page, span.before_us)
                records += kept
                if len(kept) < len(page):
                    through = page[len(kept)].position - 1
                    break
                size += sum([len(record.body) for record in page])
                if len(records) >= BATCH_RECORDS or size >= BATCH_BYTES:
                    yield project(span.tenant, position, records, records[-1].position)
                    position, records, size = records[-1].position, [], 0
        except Gap as gap:
            lost = gap
        if records:
            yield project(span.tenant, position, records, records[-1].position)
            position = records[-1].position
        if lost is not None:
            if not accept_loss:
                raise lost
            yield project(span.tenant, position, [], lost.last)
            position = lost.last


def _received_before(records: list[Record], moment_us: int | None) -> list[Record]:
    """The records before the first that was received at a time or later."""
    if moment_us is None:
        return records
    late = (i for i, record in enumerate(records) if record.received_at_us >= moment_us)
    return records[: next(late, len(records))]


async def _gathered(batches: AsyncIterator[Batch]) -> AsyncIterator[list[Batch]]:
    """Batches in lists of about as many records, or bytes, as a transaction takes."""
    gathered: list[Batch] = []
    records = size = 0
    async for batch in batches:
        gathered.append(batch)
        records += batch.through - batch.after
        size += sum([len(row.properties) for row in batch.rows]) + sum([len(row.body) for row in batch.quarantined])
        size += sum([8 * len(placed.control_record.positions) for placed in batch.control_records])
        if records >= CHUNK_RECORDS or size >= CHUNK_BYTES:
            yield gathered
            gathered, records, size = [], 0, 0
    if gathered:
        yield gathered


async def _serve() -> None:
    """The process: chunks as fast as they are taken, until the process that wants them ends."""
    order = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Order)
    parent = os.getppid()

    def send(frame: Frame) -> None:
        encoded = _encode(frame)
        sys.stdout.buffer.write(len(encoded).to_bytes(FRAME_BYTES, "big") + encoded)
        sys.stdout.buffer.flush()

    async def store_and_send() -> None:
        """Each chunk is on its way while the next is made: the other process takes it when it is not writing."""
        sending: list[asyncio.Task[None]] = []
        number = 0
        async for batches in _gathered(read(log, order.spans, accept_loss=order.accept_loss)):
            number += 1
            chunk = stage_rows(str(Path(order.folder, str(number))), batches)
            await asyncio.gather(*sending)
            sending = [asyncio.create_task(asyncio.to_thread(send, Read(chunk)))]
            while len(os.listdir(order.folder)) >= FILES_AHEAD and os.getppid() == parent:  # noqa: ASYNC110
                await asyncio.sleep(PAUSE_SECONDS)
        await asyncio.gather(*sending)

    async with Log(Connection(order.url, budget_seconds=order.budget_seconds), archive_url=order.archive_url) as log:
        try:
            await store_and_send()
        except Gap as gap:
            send(Lost(gap.tenant, gap.first, gap.last, gap.reason))
        except LogUnavailable as error:
            send(Broken(str(error)))
        except StoreUnavailable as error:
            send(Unstored(str(error)))


if __name__ == "__main__":
    gc.set_threshold(100_000, 20, 20)  # batches are many small objects that hold no cycles
    with contextlib.suppress(ConnectionError, KeyboardInterrupt, FileNotFoundError):
        uvloop.run(_serve())
