"""The connection to the server: commands in, replies out, nothing twice.

redis-py repeats commands that timed out, decodes what we want raw, and hides all but the first error of a pipeline. Here a reply
is the server's own, and a command that may have been sent is never sent again.
"""

import asyncio
import hashlib
import math
import os
import time
from collections.abc import AsyncIterator, Sequence
from functools import cache
from importlib import resources
from typing import Any, Self

import hiredis
from redis.asyncio import ConnectionPool, Redis, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from streams.errors import LogFull, LogRefused, LogUnavailable, NoServer, PenstockError, TenantDeleted
from streams.runtime.settings import without_passwords

Command = Sequence[Any]
ScriptCall = tuple[Sequence[str], Sequence[Any]]  # keys and arguments
Reply = Any
CONNECT_PAUSE_SECONDS = 0.02
READ_BYTES = 256 * 1024


@cache
def script(name: str) -> "Script":
    """The script of that name in streams/scripts.

    The functions that all scripts share come before it.
    """
    folder = resources.files("streams.scripts")
    return Script(folder.joinpath("shared.lua").read_text() + folder.joinpath(f"{name}.lua").read_text())


class Script:
    """A Lua script.

    It is called by its hash, and by its text where the server does not know it.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def command(self, keys: Sequence[str], arguments: Sequence[Any]) -> Command:
        """The command that runs the script."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)


class Connection:
    """Commands and scripts over a pool of connections.

    Every call has a time budget in seconds.
    """

    def __init__(self, url: str, *, budget_seconds: float = 2.0, connect_seconds: float | None = None) -> None:
        """Calls wait `budget_seconds` for their replies.

        With `connect_seconds`, NoServer is raised when there is no connection after so long.
        """
        self.url = url
        self.budget_seconds = budget_seconds
        self._connect_seconds = connect_seconds
        self._pool = _pool(url, budget_seconds if connect_seconds is None else connect_seconds)
        self._connect_error = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.disconnect()

    # -- an error reply is raised --------------------------------------------------------------------------------------

    async def call(self, *command: Any) -> Reply:
        """The reply to one command. Raises LogFull, LogUnavailable."""
        [reply] = await self.call_each([command])
        return reply

    async def call_each(self, commands: Sequence[Command]) -> list[Reply]:
        """The replies to commands, in order.

        Raises the first error of them: LogFull, LogUnavailable.
        """
        return _checked(await self.pipeline(commands), LogUnavailable)

    async def run(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Reply:
        """The reply of one script.

        Raises LogFull, LogRefused, LogUnavailable, TenantDeleted.
        """
        [reply] = _checked(await self.script_pipeline(name, [(keys, arguments)]), LogRefused)
        return reply

    async def run_each(self, name: str, calls: Sequence[ScriptCall]) -> list[Reply]:
        """The replies of one script, called once for each keys and arguments.

        Raises LogFull, LogUnavailable.
        """
        return _checked(await self.script_pipeline(name, calls), LogUnavailable)

    # -- an error reply is a value -------------------------------------------------------------------------------------

    async def script_pipeline(
        self, name: str, calls: Sequence[ScriptCall], *, budget_seconds: float | None = None
    ) -> list[Reply]:
        """The replies of one script, called once for each keys and arguments.

        Raises LogUnavailable.
        """
        lua = script(name)
        commands = [lua.command(keys, arguments) for keys, arguments in calls]
        replies = await self.pipeline(commands, budget_seconds=budget_seconds)
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:  # a server that restarted knows no scripts; those calls, and only those, did not run
            by_text = [("EVAL", lua.text, *commands[i][2:]) for i in unknown]
            for i, reply in zip(unknown, await self.pipeline(by_text, budget_seconds=budget_seconds), strict=True):
                replies[i] = reply
        return replies

    async def pipeline(self, commands: Sequence[Command], *, budget_seconds: float | None = None) -> list[Reply]:
        """The replies to commands, in order. Raises LogUnavailable."""
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
            raise LogUnavailable(str(error) or self._connect_error or "the server did not answer in time") from error

    async def _connected(self) -> AbstractConnection:
        """A connection, tried again within the budget. Raises NoServer.

        Nothing has been sent yet.
        """
        deadline = math.inf if self._connect_seconds is None else time.monotonic() + self._connect_seconds
        while True:
            try:
                connection: AbstractConnection = await self._pool.get_connection()
                self._connect_error = ""
                self._connect_seconds = None  # a server that was there once may be restarting
                return connection
            except (RedisError, OSError) as error:
                self._connect_error = str(error)
                if time.monotonic() > deadline:
                    raise NoServer(_shown(self.url)) if _is_no_server(error) else LogUnavailable(str(error)) from error
                await asyncio.sleep(CONNECT_PAUSE_SECONDS)

    async def listen(self, channel: str) -> AsyncIterator[bytes]:
        """The messages of a channel, from now until the connection ends.

        Raises LogUnavailable.
        """
        client = Redis(connection_pool=self._pool)
        try:
            async with client.pubsub() as subscription:
                await subscription.subscribe(channel)
                async for message in subscription.listen():
                    if message["type"] == "message":
                        yield message["data"]
        except (RedisError, OSError) as error:
            raise LogUnavailable(str(error)) from error


def _checked(replies: list[Reply], unknown: type[PenstockError]) -> list[Reply]:
    """The replies. Raises the first error reply among them."""
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise error_of(reply, unknown) from reply
    return replies


def error_of(reply: ResponseError, unknown: type[PenstockError] = LogRefused) -> PenstockError:
    """The error that an error reply stands for.

    Older servers hide OOM in a plain error, so the text decides.
    """
    text = str(reply)
    if isinstance(reply, ReadOnlyError) or "READONLY" in text:  # the first has the word removed from its text
        return LogUnavailable(f"the server is a replica: {text}")
    if "DELETED" in text:
        return TenantDeleted()
    if "OOM" in text or "maxmemory" in text:
        return LogFull()
    if "MISCONF" in text or "NOREPLICAS" in text or text.startswith("BUSY "):
        return LogUnavailable(text)
    return unknown(text)


def _is_no_server(error: Exception) -> bool:
    """Whether nothing accepts connections.

    A server that refuses a password, say, does accept them.
    """
    return isinstance(error, OSError) or type(error) in (RedisConnectionError, RedisTimeoutError)


def _shown(url: str) -> str:
    """An address for a person: without its password.

    The path of a socket begins at the root.
    """
    path = url.removeprefix("unix://")
    return without_passwords(url if path == url or "@" in path else f"unix://{os.path.abspath(path)}")


def _pool(url: str, connect_seconds: float) -> ConnectionPool:
    options: dict[str, Any] = {
        "protocol": 2,
        "socket_timeout": None,
        "socket_connect_timeout": connect_seconds,
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
