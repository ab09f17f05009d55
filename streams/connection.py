"""The connection to the server: commands in, replies out, nothing sent twice.

redis-py repeats commands that timed out, decodes what we want raw and hides all but the first error of a pipeline;
here a reply is the server's own, an error reply is a value, and what may have been sent is never sent again.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from functools import cache
from importlib import resources
from typing import Any, Self

import hiredis
from redis.asyncio import ConnectionPool, Redis, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from streams.errors import LogUnavailable

Command = Sequence[Any]
Reply = Any
CONNECT_PAUSE_SECONDS = 0.02
READ_BYTES = 256 * 1024


@cache
def script(name: str) -> "Script":
    """The script of that name beside this file, with what all scripts share before it."""
    here = resources.files("streams.scripts")
    return Script(here.joinpath("shared.lua").read_text() + here.joinpath(f"{name}.lua").read_text())


class Script:
    """A Lua script; called by its hash, and by its text where the server does not know it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def call(self, keys: Sequence[str], arguments: Sequence[Any]) -> Command:
        """The command that runs the script."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)


class Connection:
    """Pipelines of raw commands over a pool of connections. Every call has a time budget in seconds."""

    def __init__(self, url: str, *, budget_seconds: float = 2.0) -> None:
        self.url = url
        self.budget_seconds = budget_seconds
        self._scripts: dict[str, Script] = {}
        self._pool = _pool(url, budget_seconds)
        self._connect_error = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.disconnect()

    async def call(self, *command: Any) -> Reply:
        """One command's reply. Raises its error reply, or LogUnavailable."""
        [reply] = await self.calls([command])
        if isinstance(reply, ResponseError):
            raise reply
        return reply

    async def run(
        self, name: str, calls: Sequence[tuple[Sequence[str], Sequence[Any]]], *, budget_seconds: float | None = None
    ) -> list[Reply]:
        """The replies of one script called many times, each with its keys and arguments; errors are values."""
        wanted = script(name)
        commands = [wanted.call(keys, arguments) for keys, arguments in calls]
        replies = await self.calls(commands, budget_seconds=budget_seconds)
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:  # a server that restarted knows no scripts; those calls, and only those, were not run
            again = await self.calls([("EVAL", wanted.text, *commands[i][2:]) for i in unknown], budget_seconds=budget_seconds)
            for i, reply in zip(unknown, again, strict=True):
                replies[i] = reply
        return replies

    async def calls(self, commands: Sequence[Command], *, budget_seconds: float | None = None) -> list[Reply]:
        """The replies of a pipeline, in order; an error reply is a value. Raises LogUnavailable."""
        if not commands:
            return []
        packed = [hiredis.pack_command(tuple(command)) for command in commands]
        try:
            async with asyncio.timeout(self.budget_seconds if budget_seconds is None else budget_seconds):
                connection = await self._connected()
                try:
                    await connection.send_packed_command(packed, check_health=False)
                    return await _replies(connection, len(packed))
                except BaseException:
                    # Replies may still be on their way: they must never meet the next caller.
                    await connection.disconnect(nowait=True)
                    raise
                finally:
                    await self._pool.release(connection)
        except (RedisError, OSError, TimeoutError) as error:
            raise LogUnavailable(str(error) or self._connect_error or "no answer in time") from error

    async def _connected(self) -> AbstractConnection:
        """A connection, retried within the budget: nothing has been sent yet."""
        while True:
            try:
                connection: AbstractConnection = await self._pool.get_connection()
                self._connect_error = ""
                return connection
            except (RedisError, OSError) as error:
                self._connect_error = str(error)
                await asyncio.sleep(CONNECT_PAUSE_SECONDS)

    async def listen(self, channel: str) -> AsyncIterator[bytes]:
        """What is published on a channel, from now until the connection ends. Raises LogUnavailable."""
        client = Redis(connection_pool=self._pool)
        try:
            async with client.pubsub() as subscription:
                await subscription.subscribe(channel)
                async for message in subscription.listen():
                    if message["type"] == "message":
                        yield message["data"]
        except (RedisError, OSError) as error:
            raise LogUnavailable(str(error)) from error


def _pool(url: str, budget_seconds: float) -> ConnectionPool:
    options: dict[str, Any] = {
        "protocol": 2,
        "socket_timeout": None,
        "socket_connect_timeout": budget_seconds,
        "socket_read_size": READ_BYTES,
        "retry": Retry(NoBackoff(), 0),
        "driver_info": None,
    }
    path = url.removeprefix("unix://")
    if path != url and not path.startswith("/") and "@" not in path.split("/")[0]:  # from_url drops a relative path's first part
        return ConnectionPool(connection_class=UnixDomainSocketConnection, path=path, **options)
    return ConnectionPool.from_url(url, **options)


async def _replies(connection: AbstractConnection, count: int) -> list[Reply]:
    replies: list[Reply] = []
    while len(replies) < count:
        try:
            replies.append(await connection.read_response(disable_decoding=True))
        except ResponseError as error:
            replies.append(error)
    return replies
