"""A proxy before a server: it delays and drops replies."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Self


class Proxy:
    """Passes bytes between a TCP port and a server's socket.

    `delay_seconds` delays each reply; with `black_hole` requests pass and no reply does.
    """

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self._server: asyncio.Server | None = None
        self._passing: set[asyncio.Task[None]] = set()
        self._swallow: set[int] = set()
        self._replies = 0
        self.delay_seconds = 0.0
        self.black_hole = False
        self.swallowed: list[bytes] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"redis://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self.cut()

    def swallow_reply(self, nth: int = 1) -> None:
        """Drop the nth reply from now on; 1 is the next one."""
        self._swallow.add(self._replies + nth)

    async def cut(self) -> None:
        """End every connection."""
        passing = list(self._passing)
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)

    async def _accept(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_unix_connection(self._socket)
        requests = asyncio.create_task(self._pass_requests(client, to_server))
        replies = asyncio.create_task(self._pass_replies(server, to_client))
        self._passing |= {requests, replies}
        try:
            await asyncio.wait([requests, replies], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (requests, replies):
                task.cancel()
                self._passing.discard(task)
            for writer in (to_client, to_server):
                writer.close()

    async def _pass_requests(self, client: asyncio.StreamReader, to_server: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await client.read(65_536):
                to_server.write(data)
                await to_server.drain()

    async def _pass_replies(self, server: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                reply = await _one_reply(server)
                self._replies += 1
                if self.black_hole or self._replies in self._swallow:
                    self.swallowed.append(reply)
                    continue
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                to_client.write(reply)
                await to_client.drain()


async def until(holds: Callable[[], object], *, seconds: float = 60.0) -> None:
    """Wait for a condition, tried every few milliseconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "the condition did not hold in time"
        await asyncio.sleep(0.005)


async def _one_reply(server: asyncio.StreamReader) -> bytes:
    """The bytes of one whole RESP2 reply."""
    line = await server.readuntil(b"\r\n")
    kind, length = line[:1], line[1:-2]
    if kind == b"$" and length != b"-1":
        return line + await server.readexactly(int(length) + 2)
    if kind == b"*" and length != b"-1":
        return line + b"".join([await _one_reply(server) for _ in range(int(length))])
    return line
