"""A turn of a projector: what to read of the leased tenants. Pure."""

from collections.abc import Mapping, Sequence

import msgspec

from projector.projection import Batch, Checkpoint
from streams import Lease, ReadRequest, Release

READ_AHEAD = 4  # batches a turn
UNKNOWN_RECORDS = 1_000  # of a tenant, until its first batch says how large they are; its newest entry may be an exception


class BatchLimits(msgspec.Struct, frozen=True):
    """How much one transaction takes."""

    records: int
    size_bytes: int


class LeasedTenant(msgspec.Struct):
    """A tenant while this projector has its lease.

    `pending` are entries to acknowledge, each with the last position that it delivered. `served`: something of it was read.
    `ended`: nothing more of it is read in this turn. `delay_seconds`: how long it rests before it is leased again.
    `record_bytes`: the mean size of the records last read.
    """

    lease: Lease
    checkpoint: Checkpoint
    deleted: bool = False
    pending: list[tuple[bytes, int]] = msgspec.field(default_factory=list)
    served: bool = False
    ended: bool = False
    delay_seconds: float = 0.0
    record_bytes: int = 0

    def acknowledgeable(self) -> list[bytes]:
        """The pending entries whose records are in the tables; each is given once."""
        through = self.checkpoint.position
        applied = [entry for entry, last in self.pending if last <= through]
        self.pending = [(entry, last) for entry, last in self.pending if last > through]
        return applied

    @property
    def backlog(self) -> int:
        """How many records to read.

        Those after the checkpoint, and those before it that the group has not delivered.
        """
        delivered = self.lease.delivered if self.lease.delivered >= 0 else self.checkpoint.position
        return max(self.lease.last - min(delivered, self.checkpoint.position), 1)

    def release(self) -> Release:
        """How the lease is given back."""
        since_ms = 0 if self.served or self.delay_seconds else self.lease.since_ms
        return Release(self.lease.tenant, self.checkpoint.position, self.delay_seconds, since_ms)


def advance(leased: Mapping[str, LeasedTenant], batches: Sequence[Batch], written: Sequence[bool]) -> int:
    """Move the checkpoints of tenants whose batches were written.

    Returns how many records those are.

    A tenant whose batch was not written was moved by another projector, and is left for the next turn.
    """
    records = 0
    for batch, moved in zip(batches, written, strict=True):
        if moved:
            leased[batch.tenant].checkpoint = Checkpoint(batch.through, batch.digest, 0)
            records += batch.through - batch.after
        else:
            leased[batch.tenant].ended = True
    return records


def plan(leased: Mapping[str, LeasedTenant], sizes: Mapping[str, int], limits: BatchLimits) -> list[list[ReadRequest]]:
    """What to read for each batch of a turn.

    A long backlog spans several batches.

    The tenants with the shortest backlogs come first, and whole; a flood gets a batch, or its share of what the others leave.
    `sizes` has the mean bytes of a tenant's records, as last read; the newest entry may be larger.
    """
    parts: list[list[ReadRequest]] = [[]]
    records_left, bytes_left = limits.records, limits.size_bytes
    for tenant, quota in quotas(leased, limits.records * READ_AHEAD, limits.records):
        lease = leased[tenant].lease
        begin, first = leased[tenant].checkpoint.position, True
        record_bytes = max(sizes.get(tenant, 0), lease.newest_bytes)
        if tenant not in sizes:
            quota = min(quota, UNKNOWN_RECORDS)
        while quota:
            count = min(quota, records_left, bytes_left // record_bytes)
            if count == 0 and parts[-1]:
                if len(parts) == READ_AHEAD:
                    return parts
                parts.append([])
                records_left, bytes_left = limits.records, limits.size_bytes
                continue
            request = ReadRequest(lease, begin, max(count, 1), first)  # a record that fills a batch is read alone
            parts[-1].append(request)
            quota, begin, first = quota - request.count, begin + request.count, False
            records_left, bytes_left = records_left - request.count, max(0, bytes_left - request.count * record_bytes)
            if request.was_delivered:  # where it ends is seen when it is read
                break
    return parts


def quotas(leased: Mapping[str, LeasedTenant], records: int, slice_records: int) -> list[tuple[str, int]]:
    """How many records of each tenant this turn may read.

    A backlog no longer than its share of what is left is read whole, the shortest first. Longer ones get a slice each, those
    that have waited longest first, until the turn is full. The others wait: many thin slices would touch every tenant's sessions
    and index pages in each transaction.
    """
    waiting = sorted((entry.backlog, entry.lease.since_ms, tenant) for tenant, entry in leased.items())
    remaining, chosen = records, []
    for served, (backlog, _, tenant) in enumerate(waiting):
        share = remaining // (len(waiting) - served)
        if backlog > share:
            break
        chosen.append((tenant, backlog))
        remaining -= backlog
    for _, tenant, backlog in sorted((since_ms, tenant, backlog) for backlog, since_ms, tenant in waiting[len(chosen) :]):
        quota = min(backlog, remaining, max(share, slice_records))
        if quota:
            chosen.append((tenant, quota))
        remaining -= quota
    return chosen
