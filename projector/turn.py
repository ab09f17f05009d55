"""A turn of a projector: the tenants it has taken, how far each has come, and what to read of each. No I/O."""

from collections.abc import Mapping

import msgspec

from projector.tables import Checkpoint
from streams import Release, Taken, Wanted

READ_AHEAD = 3  # batches a turn
ACKNOWLEDGE_LIMIT = 100_000  # positions a range: what is pending may lie far apart
UNKNOWN_BYTES = 16 * 1024  # of a record, until a tenant's first batch says more


class Turn(msgspec.Struct):
    """A tenant while one projector has it: how far it has come, what was delivered, whether it stops here."""

    taken: Taken
    checkpoint: Checkpoint
    delivered: list[tuple[int, int]] = msgspec.field(default_factory=list)
    ended: bool = False
    delay_seconds: float = 0.0

    def acknowledgeable(self) -> list[tuple[str, int, int]]:
        """Of what was delivered, what is in the tables; each range once."""
        through = self.checkpoint.position
        ranges = [(self.taken.tenant, first, min(last, through, first + ACKNOWLEDGE_LIMIT)) for first, last in self.delivered]
        self.delivered.clear()
        return [acknowledged for acknowledged in ranges if acknowledged[1] <= acknowledged[2]]

    def release(self) -> Release:
        """How the tenant is given back."""
        return Release(self.taken.tenant, self.checkpoint.position, self.delay_seconds)


def plan(turns: Mapping[str, Turn], sizes: Mapping[str, int], *, records: int, size_bytes: int) -> list[list[Wanted]]:
    """What to read for each batch of a turn: at most so many records and bytes each, a long backlog spans several.

    Who has least to read comes first and whole; a flood gets its share and what the others leave, never more.
    `sizes` has the mean bytes of a tenant's records, as last seen.
    """
    parts: list[list[Wanted]] = [[]]
    records_left, bytes_left = records, size_bytes
    for tenant, quota in quotas(turns, records * READ_AHEAD):
        turn = turns[tenant]
        begin, first = turn.checkpoint.position, True
        # Who has nothing to read was taken because something is pending.
        abandoned = turn.taken.abandoned or turn.taken.last <= begin
        record_bytes = sizes.get(tenant, UNKNOWN_BYTES)
        while quota:
            count = min(quota, records_left, bytes_left // record_bytes)
            if count == 0 and parts[-1]:
                if len(parts) == READ_AHEAD:
                    return parts
                parts.append([])
                records_left, bytes_left = records, size_bytes
                continue
            count = max(count, 1)  # one that fills a batch alone
            parts[-1].append(Wanted(tenant, begin, count, first, first and abandoned))
            quota, begin, first = quota - count, begin + count, False
            records_left, bytes_left = records_left - count, max(0, bytes_left - count * record_bytes)
    return parts


def quotas(turns: Mapping[str, Turn], records: int) -> list[tuple[str, int]]:
    """How many records of each tenant this turn may read, the smallest backlog first; what one does not need the next gets."""
    waiting = sorted((max(turn.taken.last - turn.checkpoint.position, 1), tenant) for tenant, turn in turns.items())
    left, found = records, []
    for served, (backlog, tenant) in enumerate(waiting):
        quota = min(backlog, max(1, left // (len(waiting) - served)))
        found.append((tenant, quota))
        left -= quota
    return found
