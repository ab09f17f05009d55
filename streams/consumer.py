"""The consumer: leases tenants, reads their records, releases them.

It leases tenants that have unapplied records, and reads them through the group. A lease spreads the tenants over projectors. It
promises nothing: that no record is applied twice or skipped is decided by the checkpoint alone. A tenant has one reader at a
time, and any projector may acknowledge what another was given, so every group has one consumer, named `projector`, and a
process that ends leaves none behind.

Of a delivery only the first record is pending; the others are read with NOACK. So nothing after a group's lowest pending id was
acknowledged, and a deep backlog costs the server no entry, and its append-only file no command, for each record.
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
PENDING_IDS = 1_000  # read in one lease; a delivery has one
# The errors of XGROUP CREATE after which the log is read: the group exists, or the server's memory is full and the log is read
# without a group until it has room, or the log was deleted.
HARMLESS_CREATE_ERRORS = ("BUSYGROUP", "OOM", "maxmemory", "WRONGTYPE", "requires the key to exist")
MISSING_GROUP_ERRORS = ("NOGROUP", "no longer exists")


class Lease(msgspec.Struct, frozen=True):
    """A tenant that is leased.

    `since_ms` is the time at which it was due (the server's clock), `last` its log's last position, `delivered` the group's last
    delivered position (-1 without the group), `pending` how many deliveries are not acknowledged, and `newest_bytes` about how
    much memory its newest record takes.
    """

    tenant: str
    since_ms: int
    last: int
    delivered: int
    pending: int
    newest_bytes: int


class ReadRequest(msgspec.Struct, frozen=True):
    """At most `count` records of a leased tenant after a position.

    `first`: it is the first read of the lease, so `after` is the checkpoint.
    """

    lease: Lease
    after: int
    count: int
    first: bool

    @property
    def was_delivered(self) -> bool:
        """Whether the group has delivered these records before.

        Then it does not give them again.
        """
        return self.first and self.lease.delivered > self.after


class Delivery(msgspec.Struct, frozen=True):
    """The new records that the group gave, and the record at the checkpoint.

    That record, `head`, is compared with the tables. `pending`: ids, each with the position at which the tables must be before
    it is acknowledged. `error`: why the server could not read this log.
    """

    head: Record | None
    records: list[Record]
    pending: list[tuple[bytes, int]]
    error: str | None = None


class Release(msgspec.Struct, frozen=True):
    """A tenant to release.

    It is due again, after the delay, while its log is ahead of `checkpoint`. With the `since_ms` of its lease it keeps its
    place in the queue, because it was not served.
    """

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
        """Lease tenants that are due, oldest first; by partition.

        Leases tenants until they hold about that many unread records. Raises LogUnavailable.
        """
        share = max(1, records // max(1, len(partitions)))
        calls = [
            (
                [ready_key(partition, self._group), leases_key(partition, self._group)],
                [self._group, self._lease_owner, self._lease_ms, share, log_prefix(partition)],
            )
            for partition in partitions
        ]
        leases: dict[int, list[Lease]] = {}
        for partition, reply in zip(partitions, await self._connection.run_each("lease", calls), strict=True):
            leases[partition] = [
                Lease(tenant.decode(), int(since_ms), int(last), int(delivered), pending, newest_bytes + ENTRY_OVERHEAD_BYTES)
                for tenant, since_ms, last, delivered, pending, newest_bytes in reply
            ]
        return leases

    async def read(self, requests: Sequence[ReadRequest]) -> dict[str, Delivery]:
        """What the group gives of each tenant.

        A missing group is created at the checkpoint. Raises LogUnavailable.
        """
        commands = [self._commands(request) for request in requests]
        replies = iter(await self._connection.pipeline([command for named in commands for command in named.values()]))
        return {
            request.lease.tenant: _delivery(request, {name: next(replies) for name in named})
            for request, named in zip(requests, commands, strict=True)
        }

    def _commands(self, request: ReadRequest) -> dict[str, tuple[object, ...]]:
        """The commands that read a tenant, each by the name of what it gives."""
        log = keys_of(request.lease.tenant).log
        commands: dict[str, tuple[object, ...]] = {}
        if request.first:
            commands["head"] = ("XRANGE", log, f"{request.after}-0", f"{request.after}-0")
            if request.lease.delivered < 0:
                commands["create"] = ("XGROUP", "CREATE", log, self._group, f"{request.after}-0")
            if request.lease.pending:
                commands["pending"] = ("XPENDING", log, self._group, "-", "+", PENDING_IDS)
        if not request.was_delivered:
            read = ("XREADGROUP", "GROUP", self._group, CONSUMER)
            commands["first"] = (*read, "COUNT", 1, "STREAMS", log, ">")
            if request.count > 1:
                commands["others"] = (*read, "COUNT", request.count - 1, "NOACK", "STREAMS", log, ">")
        return commands

    async def acknowledge(self, applied: Sequence[tuple[str, Sequence[bytes]]]) -> None:
        """Acknowledge pending ids of tenants. Raises LogUnavailable.

        The records that they stand for are committed. Any process may acknowledge what another was given.
        """
        await self._connection.call_each([("XACK", keys_of(tenant).log, self._group, *ids) for tenant, ids in applied])

    async def release(self, releases: Sequence[Release]) -> None:
        """Release tenants.

        This comes last: every step before it may happen twice. Raises LogUnavailable.
        """
        calls = []
        for release in releases:
            keys = keys_of(release.tenant)
            names = [keys.log, ready_key(keys.partition, self._group), leases_key(keys.partition, self._group)]
            delay_ms = int(release.delay_seconds * 1000)
            calls.append(
                (names, [self._group, self._lease_owner, release.tenant, release.checkpoint, delay_ms, release.since_ms])
            )
        await self._connection.run_each("release", calls)

    async def requeue(self, checkpoints: Sequence[tuple[str, int]]) -> int:
        """Queue tenants that have unapplied records and left the queue.

        Also registers the group in every partition. `checkpoints` are (tenant, checkpoint). Returns how many tenants were
        queued. Raises LogUnavailable.
        """
        arguments: dict[int, list[object]] = {partition: [self._group] for partition in range(PARTITIONS)}
        for tenant, checkpoint in checkpoints:
            keys = keys_of(tenant)
            arguments[keys.partition] += (keys.log, tenant, checkpoint)
        calls = [([groups_key(p), ready_key(p, self._group)], arguments[p]) for p in range(PARTITIONS)]
        return sum(await self._connection.run_each("requeue", calls))


def _delivery(request: ReadRequest, replies: dict[str, Reply]) -> Delivery:
    """The delivery that the replies to one tenant's commands make.

    Raises LogUnavailable.
    """
    errors = {name: str(reply) for name, reply in replies.items() if isinstance(reply, Exception)}
    # Older servers name errors by their text alone.
    if "create" in errors and not _mentions(errors["create"], HARMLESS_CREATE_ERRORS):
        raise LogUnavailable(errors["create"])
    for name, error in errors.items():
        if name != "create" and not _mentions(error, MISSING_GROUP_ERRORS):
            return Delivery(None, [], [], error)
    head, pending, first, others = (
        None if name in errors else replies.get(name) for name in ("head", "pending", "first", "others")
    )
    first_entries, other_entries = _entries(first), _entries(others)
    first_records, other_records = records_of(first_entries), records_of(other_entries)
    records = first_records + other_records
    to_acknowledge = [(entry[0], request.lease.delivered) for entry in pending or []]
    if first_entries:
        to_acknowledge.append((first_entries[0][0], records[-1].position if records else 0))
    if first_records and other_records and other_records[0].position != first_records[0].position + 1:
        records = first_records  # another reader came between the two commands; the next lease reads on from here
    return Delivery(record_of(head[0]) if head else None, records, to_acknowledge)


def _mentions(error: str, texts: Sequence[str]) -> bool:
    return any(text in error for text in texts)


def _entries(reply: Reply) -> list[Reply]:
    """The entries of the one stream that XREADGROUP read."""
    return list(reply[0][1]) if reply else []
