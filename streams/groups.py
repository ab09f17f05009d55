"""Groups: who reads the logs and how far, and the end of one that nobody uses any more.

A group that is registered keeps records from the archive until it has acknowledged them. One of a database that is gone would
keep them for ever.
"""

import asyncio
from collections import Counter

import msgspec

from streams.connection import Connection, Reply
from streams.errors import LogUnavailable, PenstockError
from streams.keys import PARTITIONS, groups_key, keys_of, leases_key, ready_key
from streams.log import Log

ALIVE_SECONDS = 10.0  # a projector registers its group again about every five


class GroupAlive(PenstockError):
    """A projector uses the group."""

    def __init__(self, name: str) -> None:
        super().__init__(f"a projector uses the group {name}: stop it first")


class Group(msgspec.Struct, frozen=True):
    """A group: how many records of all logs it has not acknowledged, and of how many logs."""

    name: str
    records: int
    logs: int


async def groups(log: Log) -> list[Group]:
    """Every group, by name. Raises LogUnavailable."""
    summaries = await log.summaries()
    replies = await log.connection.run("group_progress", [([keys_of(summary.tenant).log], []) for summary in summaries])
    registered = [{name.decode() for name in names} for names in await _each(log.connection, "SMEMBERS")]
    records: Counter[str] = Counter({name: 0 for names in registered for name in names})
    logs: Counter[str] = Counter()
    for summary, reply in zip(summaries, map(_value, replies), strict=True):
        last, *said = reply
        through = {name.decode(): int(position) for name, position in zip(said[::2], said[1::2], strict=True)}
        for name in registered[keys_of(summary.tenant).partition] | through.keys():
            behind = int(last) - through.get(name, 0)
            records[name] += behind
            logs[name] += behind > 0
    return [Group(name, count, logs[name]) for name, count in sorted(records.items())]


async def forget(log: Log, name: str) -> int:
    """Remove a group from every log and from what is registered; of how many logs. Whoever uses it registers it again: it is
    taken out, and waited for. Interrupt it at any moment and start it again. Raises GroupAlive, LogUnavailable."""
    await _each(log.connection, "SREM", name)
    await asyncio.sleep(ALIVE_SECONDS)
    if any(await _each(log.connection, "SISMEMBER", name)):
        raise GroupAlive(name)
    destroyed = 0
    for summary in await log.summaries():
        [reply] = await log.connection.calls([("XGROUP", "DESTROY", keys_of(summary.tenant).log, name)])
        destroyed += 0 if isinstance(reply, Exception) else int(reply)  # a tenant without a log has no groups
    for partition in range(PARTITIONS):
        await log.connection.call("UNLINK", ready_key(partition, name), leases_key(partition, name))
    return destroyed


async def _each(connection: Connection, command: str, *arguments: str) -> list[Reply]:
    """What a command says of the registered groups of each partition."""
    return [_value(reply) for reply in await connection.calls([(command, groups_key(p), *arguments) for p in range(PARTITIONS)])]


def _value(reply: Reply) -> Reply:
    if isinstance(reply, Exception):
        raise LogUnavailable(str(reply))
    return reply
