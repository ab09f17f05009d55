"""The server's append-only file, rewritten without what was erased."""

import asyncio
from collections.abc import Awaitable, Callable

from redis.exceptions import ResponseError

from streams.connection import Connection

PAUSE_SECONDS = 0.1


async def rewrite_append_only_file(connection: Connection) -> bool | None:
    """Have the server rewrite its append-only file; return whether it did.

    Waits until it has. None when the server has no append-only file or does not allow the rewrite. Raises LogUnavailable.
    """

    async def persistence() -> dict[bytes, bytes]:
        lines = (await connection.call("INFO", "persistence")).splitlines()
        return dict(line.split(b":", 1) for line in lines if b":" in line)

    if (await persistence()).get(b"aof_enabled") != b"1":
        return None
    await _wait_until_idle(persistence)
    [reply] = await connection.pipeline([("BGREWRITEAOF",)])
    if isinstance(reply, ResponseError):
        return None
    return (await _wait_until_idle(persistence)).get(b"aof_last_bgrewrite_status") == b"ok"


async def _wait_until_idle(persistence: Callable[[], Awaitable[dict[bytes, bytes]]]) -> dict[bytes, bytes]:
    """Wait until no rewrite is under way; return what INFO says then."""
    while True:
        info = await persistence()
        if info.get(b"aof_rewrite_in_progress") == b"0" and info.get(b"aof_rewrite_scheduled") == b"0":
            return info
        await asyncio.sleep(PAUSE_SECONDS)
