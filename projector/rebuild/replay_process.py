"""One replaying process: `python -m projector.rebuild`.

It gets an order on its standard input, and gives chunks on its standard output, whose rows are in files.
"""

import asyncio
import os
import sys
from pathlib import Path

import msgspec

from projector.rebuild.batches import Span, gathered, read
from projector.store import Chunk, StoreUnavailable, stage_rows
from streams import Connection, Log
from streams.errors import Gap, LogUnavailable

FILES_AHEAD = 3  # of a process
PAUSE_SECONDS = 0.002
FRAME_BYTES = 4  # of the length that stands before a frame


class Order(msgspec.Struct, frozen=True):
    """What a process is to replay. It names its files `folder`/1, 2, 3, …"""

    url: str
    archive_url: str
    budget_seconds: float
    spans: list[Span]
    accept_loss: bool
    folder: str


class Lost(msgspec.Struct, frozen=True, tag=True):
    """A gap in the log was met."""

    tenant: str
    first: int
    last: int
    reason: str


class Broken(msgspec.Struct, frozen=True, tag=True):
    """The log could not be read."""

    reason: str


class Unstored(msgspec.Struct, frozen=True, tag=True):
    """Rows could not be put into a file."""

    reason: str


class Read(msgspec.Struct, frozen=True, tag=True):
    """A chunk was read."""

    chunk: Chunk


Frame = Read | Lost | Broken | Unstored
encode = msgspec.msgpack.Encoder().encode
decode_frame = msgspec.msgpack.Decoder(Frame).decode


async def serve() -> None:
    """Give chunks as fast as they are taken, until the parent process ends."""
    order = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Order)
    parent = os.getppid()

    def send(frame: Frame) -> None:
        encoded = encode(frame)
        sys.stdout.buffer.write(len(encoded).to_bytes(FRAME_BYTES, "big") + encoded)
        sys.stdout.buffer.flush()

    async def store_and_send() -> None:
        """Send each chunk while the next one is made.

        The parent takes it when it is not writing.
        """
        sending: list[asyncio.Task[None]] = []
        number = 0
        async for batches in gathered(read(log, order.spans, accept_loss=order.accept_loss)):
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
