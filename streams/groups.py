"""Consumer groups: their lag, and the end of a group.

A registered group keeps records from the archive until it has acknowledged them. A group whose database was removed would never
acknowledge them, so it can be destroyed.
"""

import asyncio
from collections import Counter

import msgspec

from streams.connection import Connection, Reply
from streams.errors import PenstockError
from streams.keys import PARTITIONS, groups_key, keys_of, leases_key, ready_key
from streams.log import Log

ALIVE_SECONDS = 10.0  # a projector registers its group again about every five seconds


class GroupAlive(PenstockError):
    """A projector uses the group."""

    def __init__(self, name: str) -> None:
        super().__init__(f"a projector uses the group {name}: stop it first")


class Group(msgspec.Struct, frozen=True):
    """A group: how many records it has not acknowledged, of how many logs."""

    name: str
    records: int
    logs: int


async def groups(log: Log) -> list[Group]:
    """Every group, by name. Raises LogUnavailable."""
    summaries = await log.summaries()
    progress = await log.connection.run_each("group_progress", [([keys_of(summary.tenant).log], []) for summary in summaries])
    registered = [{name.decode() for name in names} for names in await _in_each_partition(log.connection, "SMEMBERS")]
    records: Counter[str] = Counter({name: 0 for names in registered for name in names})
    logs: Counter[str] = Counter()
    for summary, (last, *fields) in zip(summaries, progress, strict=True):
        acknowledged = {name.decode(): int(position) for name, position in zip(fields[::2], fields[1::2], strict=True)}
        for name in registered[keys_of(summary.tenant).partition] | acknowledged.keys():
            lag = int(last) - acknowledged.get(name, 0)
            records[name] += lag
            logs[name] += lag > 0
    return [Group(name, count, logs[name]) for name, count in sorted(records.items())]


async def destroy(log: Log, name: str) -> int:
    """Remove a group from every log; return from how many.

    Also from the registered groups. A projector that uses the group registers it again within ALIVE_SECONDS: this waits for it.
    May be interrupted at any moment and started again. Raises GroupAlive, LogUnavailable.
    """
    await _in_each_partition(log.connection, "SREM", name)
    await asyncio.sleep(ALIVE_SECONDS)
    if any(await _in_each_partition(log.connection, "SISMEMBER", name)):
        raise GroupAlive(name)
    destroyed = 0
    for summary in await log.summaries():
        [reply] = await log.connection.pipeline([("XGROUP", "DESTROY", keys_of(summary.tenant).log, name)])
        destroyed += reply if isinstance(reply, int) else 0  # a tenant without a log has no groups
    for partition in range(PARTITIONS):
        await log.connection.call("UNLINK", ready_key(partition, name), leases_key(partition, name))
    return destroyed


async def _in_each_partition(connection: Connection, command: str, *arguments: str) -> list[Reply]:
    """The replies to a command on the registered groups of each partition."""
    return await connection.call_each([(command, groups_key(p), *arguments) for p in range(PARTITIONS)])
