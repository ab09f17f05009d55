"""A turn of a projector: the tenants it has lease, how far each has come, and what to read of each. No I/O."""

from collections.abc import Mapping

import msgspec

from projector.projection import Checkpoint
from streams import Lease, ReadRequest, Release

READ_AHEAD = 4  # batches a turn
UNKNOWN_RECORDS = 1_000  # of a tenant, until its first batch says how large they are; its newest entry may be an exception


class LeasedTenant(msgspec.Struct):
    """A tenant while one projector has it: how far it has come, whether it was erased, what is pending, whether it stops here."""

    lease: Lease
    checkpoint: Checkpoint
    erased: bool = False
    pending: list[tuple[bytes, int]] = msgspec.field(default_factory=list)
    served: bool = False
    ended: bool = False
    delay_seconds: float = 0.0

    def acknowledgeable(self) -> list[bytes]:
        """Of what is pending, what is in the tables; each once."""
        through = self.checkpoint.position
        done = [pending for pending, last in self.pending if last <= through]
        self.pending = [(pending, last) for pending, last in self.pending if last > through]
        return done

    @property
    def backlog(self) -> int:
        """How many records to read: those the tables do not have, and those the group never gave although they do."""
        delivered = self.lease.delivered if self.lease.delivered >= 0 else self.checkpoint.position
        return max(self.lease.last - min(delivered, self.checkpoint.position), 1)

    def release(self) -> Release:
        """How the tenant is given back."""
        since_ms = 0 if self.served or self.delay_seconds else self.lease.since_ms
        return Release(self.lease.tenant, self.checkpoint.position, self.delay_seconds, since_ms)


def plan(
    leased: Mapping[str, LeasedTenant], sizes: Mapping[str, int], *, records: int, size_bytes: int
) -> list[list[ReadRequest]]:
    """What to read for each batch of a turn: at most so many records and bytes each, a long backlog spans several.

    Who has least to read comes first and whole; a flood gets a batch, or its share of what the others leave.
    `sizes` has the mean bytes of a tenant's records, as last seen; the newest entry may be larger.
    """
    parts: list[list[ReadRequest]] = [[]]
    records_left, bytes_left = records, size_bytes
    for tenant, quota in quotas(leased, records * READ_AHEAD, records):
        turn = leased[tenant]
        begin, first = turn.checkpoint.position, True
        record_bytes = max(sizes.get(tenant, 0), turn.lease.newest_bytes)
        if tenant not in sizes:
            quota = min(quota, UNKNOWN_RECORDS)
        while quota:
            count = min(quota, records_left, bytes_left // record_bytes)
            if count == 0 and parts[-1]:
                if len(parts) == READ_AHEAD:
                    return parts
                parts.append([])
                records_left, bytes_left = records, size_bytes
                continue
            want = ReadRequest(turn.lease, begin, max(count, 1), first)  # one that fills a batch alone is read alone
            parts[-1].append(want)
            quota, begin, first = quota - want.count, begin + want.count, False
            records_left, bytes_left = records_left - want.count, max(0, bytes_left - want.count * record_bytes)
            if want.was_delivered:  # where it ends is seen when it is read
                break
    return parts


def quotas(leased: Mapping[str, LeasedTenant], records: int, slice_records: int) -> list[tuple[str, int]]:
    """How many records of each tenant this turn may read: a backlog no longer than its share of what is left is read whole,
    the smallest first. Longer ones get a slice each, who has waited longest first, until the turn is full; the rest waits:
    many thin slices would touch every tenant's sessions and index pages in each transaction."""
    waiting = sorted((turn.backlog, turn.lease.since_ms, tenant) for tenant, turn in leased.items())
    left, found = records, []
    for served, (backlog, _, tenant) in enumerate(waiting):
        share = left // (len(waiting) - served)
        if backlog > share:
            break
        found.append((tenant, backlog))
        left -= backlog
    for _, tenant, backlog in sorted((since_ms, tenant, backlog) for backlog, since_ms, tenant in waiting[len(found) :]):
        quota = min(backlog, left, max(share, slice_records))
        if quota:
            found.append((tenant, quota))
        left -= quota
    return found
