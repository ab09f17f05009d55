"""Replay: what logs say as batches, in order, read and projected by a process of its own when there is much of it.

Reading and projecting take as long as writing; a second processor does them while this one writes. `python -m
projector.replay` is that process: orders on its standard input, batches on its standard output, until either ends.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence

import msgspec

from projector.projection import Batch, project
from streams import Hole, Log, LogUnavailable, Record, Wire

PROCESS_RECORDS = 50_000  # from here on, a process pays for its start
BATCH_RECORDS = 5_000  # of one tenant: many small batches would look the same sessions up many times
BUFFER_BYTES = 32 * 1024 * 1024
FRAME_BYTES = 4


class Span(msgspec.Struct, frozen=True):
    """What to replay of a tenant: positions `after` + 1 to `through`."""

    tenant: str
    after: int
    through: int


class Order(msgspec.Struct, frozen=True):
    """What a replaying process is told."""

    url: str
    budget_seconds: float
    spans: list[Span]
    accept_loss: bool


class Lost(msgspec.Struct, frozen=True, tag=True):
    """A hole, on its way between processes."""

    tenant: str
    first: int
    last: int


class Broken(msgspec.Struct, frozen=True, tag=True):
    """That the log could not be read, on its way between processes."""

    reason: str


class Read(msgspec.Struct, frozen=True, tag=True):
    """A batch, on its way between processes."""

    batch: Batch


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Read | Lost | Broken).decode


async def replay(log: Log, spans: Sequence[Span], *, accept_loss: bool = False) -> AsyncIterator[Batch]:
    """The batches of some spans, in order. Raises Hole unless losses are accepted, LogUnavailable."""
    if sum(span.through - span.after for span in spans) < PROCESS_RECORDS:
        for span in spans:
            async for batch in _read(log, span, accept_loss):
                yield batch
        return
    order = Order(log.wire.url, log.wire.budget_seconds, list(spans), accept_loss)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "projector.replay", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        limit=BUFFER_BYTES,
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
                raise Hole(frame.tenant, frame.first, frame.last)
            if isinstance(frame, Broken):
                raise LogUnavailable(frame.reason)
            yield frame.batch
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
    position = span.after
    while position < span.through:
        records: list[Record] = []
        lost: Hole | None = None
        try:
            async for page in log.read(span.tenant, position, through=span.through):
                records += page
                if len(records) >= BATCH_RECORDS:
                    yield project(span.tenant, position, records, records[-1].position)
                    position, records = records[-1].position, []
        except Hole as hole:
            lost = hole
        if records:
            yield project(span.tenant, position, records, records[-1].position)
            position = records[-1].position
        if lost is not None:
            if not accept_loss:
                raise lost
            yield project(span.tenant, position, [], lost.last)
            position = lost.last


async def _serve() -> None:
    """The process: batches to standard output as fast as they are taken."""
    order = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Order)
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sys.stdout.buffer)
    transport.set_write_buffer_limits(high=BUFFER_BYTES)
    output = asyncio.StreamWriter(transport, protocol, None, loop)

    async def send(frame: Read | Lost | Broken) -> None:
        encoded = _encode(frame)
        output.write(len(encoded).to_bytes(FRAME_BYTES, "big") + encoded)
        await output.drain()

    async with Log(Wire(order.url, budget_seconds=order.budget_seconds)) as log:
        try:
            for span in order.spans:
                async for batch in _read(log, span, order.accept_loss):
                    await send(Read(batch))
        except Hole as hole:
            await send(Lost(hole.tenant, hole.first, hole.last))
        except LogUnavailable as error:
            await send(Broken(str(error)))
    transport.set_write_buffer_limits(high=0)
    await output.drain()  # until all is out


if __name__ == "__main__":
    with contextlib.suppress(ConnectionError, KeyboardInterrupt):
        asyncio.run(_serve())
