"""The consumer: takes tenants that have something to read, reads it through the group, gives the tenants back.

A lease spreads the tenants over projectors; it is a courtesy, not a guarantee: that nothing is applied twice or skipped
is decided by the checkpoint alone. Since a tenant has one reader at a time and any projector may acknowledge what
another was given, every group has one consumer, named `projector`, and none is ever left behind by a process that ended.

A delivery is pending by its first record; the rest of it is read with NOACK. So nothing behind a group's lowest pending
id was acknowledged, and a deep backlog costs the server no entry, and its append-only file no command, for each record.
"""

from collections.abc import Sequence

import msgspec

from streams.append import ENTRY_OVERHEAD_BYTES
from streams.connection import Connection, Reply
from streams.errors import LogUnavailable
from streams.event import Record
from streams.keys import PARTITIONS, groups_key, keys_of, leases_key, log_prefix, ready_key
from streams.log import record_of, records_of

CONSUMER = "projector"
PENDING_IDS = 1_000  # a turn; a delivery has one


class Lease(msgspec.Struct, frozen=True):
    """A tenant that was taken: since when it was due (server's clock), its log's last position, the group's last delivered
    one (-1 without the group), how many of its deliveries are pending, and about how much memory its newest record takes."""

    tenant: str
    since_ms: int
    last: int
    delivered: int
    pending: int
    newest_bytes: int


class ReadRequest(msgspec.Struct, frozen=True):
    """What to read of a tenant: at most `count` records behind `after`; `first` in this turn, so after the checkpoint."""

    lease: Lease
    after: int
    count: int
    first: bool

    @property
    def was_delivered(self) -> bool:
        """Whether this was delivered to somebody before, so that the group does not give it again."""
        return self.first and self.lease.delivered > self.after


class Delivery(msgspec.Struct, frozen=True):
    """What the group gave: new records, and the record at the checkpoint to compare with. `pending`: ids, each with the
    position where the tables must be before it is acknowledged. `error`: why the server could not read this log."""

    head: Record | None
    records: list[Record]
    pending: list[tuple[bytes, int]]
    error: str | None = None


class Release(msgspec.Struct, frozen=True):
    """A tenant to give back: due again while its log is ahead of `checkpoint`, and not before the delay; at its old place
    in the queue when it was not served, so `since_ms` of what was taken."""

    tenant: str
    checkpoint: int
    delay_seconds: float = 0.0
    since_ms: int = 0


class Consumer:
    """One process's part in a group."""

    def __init__(self, connection: Connection, *, group: str, lease_owner: str, lease_seconds: float) -> None:
        self._connection = connection
        self._group = group
        self._lease_owner = lease_owner
        self._lease_ms = int(lease_seconds * 1000)

    async def lease(self, partitions: Sequence[int], *, records: int) -> dict[int, list[Lease]]:
        """Tenants that are due, by partition, oldest first, as many as hold about that many unread records in all."""
        share = max(1, records // max(1, len(partitions)))
        calls = [
            (
                [ready_key(partition, self._group), leases_key(partition, self._group)],
                [self._group, self._lease_owner, self._lease_ms, share, log_prefix(partition)],
            )
            for partition in partitions
        ]
        leases: dict[int, list[Lease]] = {}
        for partition, reply in zip(partitions, await self._connection.run("lease", calls), strict=True):
            leases[partition] = [
                Lease(tenant.decode(), int(since_ms), int(last), int(delivered), pending, newest_bytes + ENTRY_OVERHEAD_BYTES)
                for tenant, since_ms, last, delivered, pending, newest_bytes in _value(reply)
            ]
        return leases

    async def read(self, wanted: Sequence[ReadRequest]) -> dict[str, Delivery]:
        """What the group gives of each tenant. A group that is gone is made again at the checkpoint."""
        commands = [self._commands(want) for want in wanted]
        replies = iter(await self._connection.calls([command for some in commands for command in some.values()]))
        return {
            want.lease.tenant: _delivery(want, {name: next(replies) for name in some})
            for want, some in zip(wanted, commands, strict=True)
        }

    def _commands(self, want: ReadRequest) -> dict[str, tuple[object, ...]]:
        log = keys_of(want.lease.tenant).log
        commands: dict[str, tuple[object, ...]] = {}
        if want.first:
            commands["head"] = ("XRANGE", log, f"{want.after}-0", f"{want.after}-0")
            if want.lease.delivered < 0:
                commands["create"] = ("XGROUP", "CREATE", log, self._group, f"{want.after}-0")
            if want.lease.pending:
                commands["pending"] = ("XPENDING", log, self._group, "-", "+", PENDING_IDS)
        if not want.was_delivered:
            read = ("XREADGROUP", "GROUP", self._group, CONSUMER)
            commands["one"] = (*read, "COUNT", 1, "STREAMS", log, ">")
            if want.count > 1:
                commands["rest"] = (*read, "COUNT", want.count - 1, "NOACK", "STREAMS", log, ">")
        return commands

    async def acknowledge(self, done: Sequence[tuple[str, Sequence[bytes]]]) -> None:
        """Acknowledge pending ids of tenants, whoever they were delivered to. Only after what they stand for is committed."""
        for reply in await self._connection.calls([("XACK", keys_of(tenant).log, self._group, *ids) for tenant, ids in done]):
            _value(reply)

    async def release(self, releases: Sequence[Release]) -> None:
        """Give the tenants back. Last: everything before it may happen twice."""
        calls = []
        for release in releases:
            keys = keys_of(release.tenant)
            names = [keys.log, ready_key(keys.partition, self._group), leases_key(keys.partition, self._group)]
            delay_ms = int(release.delay_seconds * 1000)
            calls.append(
                (names, [self._group, self._lease_owner, release.tenant, release.checkpoint, delay_ms, release.since_ms])
            )
        for reply in await self._connection.run("release", calls):
            _value(reply)

    async def repair(self, checkpoints: Sequence[tuple[str, int]]) -> int:
        """Register the group everywhere, and make ready what is behind its checkpoint and was forgotten; how many."""
        arguments: dict[int, list[object]] = {partition: [self._group] for partition in range(PARTITIONS)}
        for tenant, checkpoint in checkpoints:
            keys = keys_of(tenant)
            arguments[keys.partition] += (keys.log, tenant, checkpoint)
        calls = [([groups_key(p), ready_key(p, self._group)], arguments[p]) for p in range(PARTITIONS)]
        return sum(_value(reply) for reply in await self._connection.run("requeue", calls))


def _value(reply: Reply) -> Reply:
    if isinstance(reply, Exception):
        raise LogUnavailable(str(reply))
    return reply


def _says(reply: Reply, *texts: str) -> bool:
    """Whether a reply is an error that says one of these; older servers name errors by their text alone."""
    return isinstance(reply, Exception) and any(text in str(reply) for text in texts)


def _delivery(want: ReadRequest, replies: dict[str, Reply]) -> Delivery:
    """What the replies to the commands for one tenant come to."""
    # OOM: a server whose memory is full makes no group; the log is read without one until it can. A log that is gone gets none
    if not _says(replies.get("create"), "BUSYGROUP", "OOM", "maxmemory", "WRONGTYPE", "requires the key to exist"):
        _value(replies.get("create"))
    for name, reply in replies.items():
        if name != "create" and isinstance(reply, Exception) and not _says(reply, "NOGROUP", "no longer exists"):
            return Delivery(None, [], [], str(reply))
    head = replies.get("head")
    one, rest = _entries(replies.get("one")), _entries(replies.get("rest"))
    pending = [(entry[0], want.lease.delivered) for entry in _answer(replies.get("pending")) or []]
    given, following = records_of(one), records_of(rest)
    records = given + following
    if one:
        pending.append((one[0][0], records[-1].position if records else 0))
    if given and following and following[0].position != given[0].position + 1:
        records = given  # another reader came between the two; the next turn reads on from there
    return Delivery(record_of(head[0]) if head else None, records, pending)


def _answer(reply: Reply) -> Reply:
    """A reply, or None for an error that was looked at before."""
    return None if isinstance(reply, Exception) else reply


def _entries(reply: Reply) -> list[Reply]:
    """The entries of one stream that XREADGROUP gave."""
    answer = _answer(reply)
    return list(answer[0][1]) if answer else []
