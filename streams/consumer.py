"""The consumer: takes tenants that have something to read, reads it through the group, gives the tenants back.

A lease spreads the tenants over projectors; it is a courtesy, not a guarantee: that nothing is applied twice or skipped
is decided by the checkpoint alone. Since a tenant has one reader at a time and any projector may acknowledge what
another was given, every group has one consumer, named `projector`, and none is ever left behind by a process that ended.
"""

from collections.abc import Sequence

import msgspec

from streams.event import Record
from streams.keys import PARTITIONS, groups_key, keys_of, leases_key, log_prefix, ready_key
from streams.log import record_of, records_of
from streams.wire import LogUnavailable, Reply, Wire

CONSUMER = "projector"
ACKNOWLEDGE_IDS = 2_000  # a command


class Taken(msgspec.Struct, frozen=True):
    """A tenant that was taken, with its log's last position. `abandoned`: whoever had it before never gave it back."""

    tenant: str
    last: int
    abandoned: bool


class Wanted(msgspec.Struct, frozen=True):
    """What to read of a tenant: at most `count` records behind `after`; `first` in this turn, so after the checkpoint."""

    tenant: str
    after: int
    count: int
    first: bool
    abandoned: bool


class Delivery(msgspec.Struct, frozen=True):
    """What the group gave: new records, the record at the checkpoint to compare with, the first and last position that were
    delivered and never acknowledged. `error`: why the server could not read this log."""

    head: Record | None
    records: list[Record]
    pending: tuple[int, int] | None
    error: str | None = None


class Release(msgspec.Struct, frozen=True):
    """A tenant to give back: due again while its log is ahead of `checkpoint`, and not before the delay."""

    tenant: str
    checkpoint: int
    delay_seconds: float = 0.0


class Consumer:
    """One process's part in a group."""

    def __init__(self, wire: Wire, *, group: str, holder: str, lease_seconds: float) -> None:
        self._wire = wire
        self._group = group
        self._holder = holder
        self._lease_ms = int(lease_seconds * 1000)

    async def take(self, partitions: Sequence[int], *, records: int) -> dict[int, list[Taken]]:
        """Tenants that are due, by partition, oldest first, as many as hold about that many unread records in all."""
        share = max(1, records // max(1, len(partitions)))
        calls = [
            (
                [ready_key(partition, self._group), leases_key(partition, self._group)],
                [self._group, self._holder, self._lease_ms, share, log_prefix(partition)],
            )
            for partition in partitions
        ]
        taken: dict[int, list[Taken]] = {}
        for partition, reply in zip(partitions, await self._wire.run("take", calls), strict=True):
            values = _value(reply)
            taken[partition] = [
                Taken(tenant.decode(), int(last), before != b"")
                for tenant, last, before in zip(values[0::3], values[1::3], values[2::3], strict=True)
            ]
        return taken

    async def read(self, wanted: Sequence[Wanted]) -> dict[str, Delivery]:
        """What the group gives of each tenant. A group that is gone is made again at the checkpoint."""
        commands: list[tuple[object, ...]] = []
        for want in wanted:
            log = keys_of(want.tenant).log
            if want.first:
                commands.append(("XRANGE", log, f"{want.after}-0", f"{want.after}-0"))
            commands.append(("XREADGROUP", "GROUP", self._group, CONSUMER, "COUNT", want.count, "STREAMS", log, ">"))
            if want.abandoned:
                commands.append(("XPENDING", log, self._group))
        replies = iter(await self._wire.calls(commands))
        deliveries: dict[str, Delivery] = {}
        lost: list[Wanted] = []
        for want in wanted:
            head = next(replies) if want.first else None
            new = next(replies)
            pending = next(replies) if want.abandoned else None
            if _says(new, "NOGROUP", "no longer exists"):
                if want.first:  # only then is `after` the checkpoint; the rest of this turn is read from the log
                    lost.append(want)
                new = None
            errors = [str(reply) for reply in (head, new) if isinstance(reply, Exception)]
            deliveries[want.tenant] = Delivery(
                head=record_of(head[0]) if head and not errors else None,
                records=records_of(new[0][1]) if new and not errors else [],
                pending=_range(pending),
                error=errors[0] if errors else None,
            )
        await self._create_groups(lost)
        return deliveries

    async def _create_groups(self, lost: Sequence[Wanted]) -> None:
        replies = await self._wire.calls(
            [("XGROUP", "CREATE", keys_of(want.tenant).log, self._group, f"{want.after}-0", "MKSTREAM") for want in lost]
        )
        for reply in replies:
            # OOM: a server whose memory is full makes no group; the log is read without one until it can
            if not _says(reply, "BUSYGROUP", "OOM", "maxmemory", "WRONGTYPE"):
                _value(reply)

    async def acknowledge(self, ranges: Sequence[tuple[str, int, int]]) -> None:
        """Acknowledge (tenant, first, last) positions, whoever they were delivered to. Only after they are committed."""
        commands: list[tuple[object, ...]] = []
        for tenant, first, last in ranges:
            log = keys_of(tenant).log
            for begin in range(first, last + 1, ACKNOWLEDGE_IDS):
                ids = [f"{position}-0" for position in range(begin, min(begin + ACKNOWLEDGE_IDS, last + 1))]
                commands.append(("XACK", log, self._group, *ids))
        for reply in await self._wire.calls(commands):
            _value(reply)

    async def release(self, releases: Sequence[Release]) -> None:
        """Give the tenants back. Last: everything before it may happen twice."""
        calls = []
        for release in releases:
            keys = keys_of(release.tenant)
            names = [keys.log, ready_key(keys.partition, self._group), leases_key(keys.partition, self._group)]
            delay_ms = int(release.delay_seconds * 1000)
            calls.append((names, [self._group, self._holder, release.tenant, release.checkpoint, delay_ms]))
        for reply in await self._wire.run("release", calls):
            _value(reply)

    async def repair(self, checkpoints: Sequence[tuple[str, int]]) -> int:
        """Register the group everywhere, and make ready what is behind its checkpoint and was forgotten; how many."""
        arguments: dict[int, list[object]] = {partition: [self._group] for partition in range(PARTITIONS)}
        for tenant, checkpoint in checkpoints:
            keys = keys_of(tenant)
            arguments[keys.partition] += (keys.log, tenant, checkpoint)
        calls = [([groups_key(p), ready_key(p, self._group)], arguments[p]) for p in range(PARTITIONS)]
        return sum(_value(reply) for reply in await self._wire.run("repair", calls))


def _value(reply: Reply) -> Reply:
    if isinstance(reply, Exception):
        raise LogUnavailable(str(reply))
    return reply


def _says(reply: Reply, *texts: str) -> bool:
    """Whether a reply is an error that says one of these; older servers name errors by their text alone."""
    return isinstance(reply, Exception) and any(text in str(reply) for text in texts)


def _range(pending: Reply) -> tuple[int, int] | None:
    """The lowest and the highest pending position from XPENDING's summary."""
    if pending is None or isinstance(pending, Exception) or not pending[0]:
        return None
    return int(pending[1].partition(b"-")[0]), int(pending[2].partition(b"-")[0])
