"""From deliveries to batches.

A batch begins at the checkpoint, whatever the consumer group delivered.
"""

from collections.abc import Sequence

from projector.divergence import DeletedTenantHasLog, LogDiffers, LogTruncated, LogUnreadable, differs
from projector.live.scheduling import BatchLimits, LeasedTenant
from projector.projection import Batch, project
from streams import Delivery, Lease, Log, Record, mean_bytes
from streams.errors import Gap

LOST_LIMIT_RECORDS = 1_000


async def next_batch(log: Log, leased: LeasedTenant, delivery: Delivery, limits: BatchLimits) -> Batch | None:
    """The batch that begins at the checkpoint, or None.

    Raises LogTruncated, LogDiffers, LogUnreadable, DeletedTenantHasLog, Gap when the tenant's log cannot be applied.
    """
    check(leased, delivery)
    lease, after = leased.lease, leased.checkpoint.position
    records = delivery.records
    if records and records[0].position <= after:
        records = [record for record in records if record.position > after]
        if not records:  # the tables are ahead of the group
            return None
    through = records[-1].position if records else after
    if not records or records[0].position > after + 1:
        records, through = await fill(log, lease, after, records, limits)
    if records:
        leased.record_bytes = mean_bytes(records)
    if through - after - len(records) > LOST_LIMIT_RECORDS:
        raise first_gap(lease.tenant, after, records)
    return project(lease.tenant, after, records, through) if through > after else None


def check(leased: LeasedTenant, delivery: Delivery) -> None:
    """Check that a log is the log that the tables were made from.

    Raises LogTruncated, LogDiffers, LogUnreadable, DeletedTenantHasLog.
    """
    lease, checkpoint = leased.lease, leased.checkpoint
    if leased.deleted and lease.last:
        raise DeletedTenantHasLog(lease.tenant)
    if delivery.error is not None:
        raise LogUnreadable(lease.tenant, delivery.error)
    if lease.last < checkpoint.position:
        raise LogTruncated(lease.tenant, lease.last, checkpoint.position)
    if differs(delivery.head, checkpoint):
        raise LogDiffers(lease.tenant, checkpoint.position)


async def fill(log: Log, lease: Lease, after: int, delivered: list[Record], limits: BatchLimits) -> tuple[list[Record], int]:
    """The records after a position, and the last position.

    What lies before the delivered records is read from the log.

    Records that were delivered to a projector that died, or before a database was restored, are read here. A limited number of
    records may be missing from the log; the projection puts their positions into quarantine.
    """
    group_position = lease.delivered if lease.delivered > after else lease.last
    through = min(delivered[0].position - 1 if delivered else group_position, after + limits.records)
    records: list[Record] = []
    position, lost, size = after, 0, 0
    while position < through:
        try:
            async for page in log.read(lease.tenant, position, through=through):
                records += page
                position = page[-1].position
                size += sum([len(record.body) for record in page])
                if size >= limits.size_bytes:
                    return records, position
        except Gap as gap:
            lost += gap.last - position
            if lost > LOST_LIMIT_RECORDS:
                raise
            position = gap.last
    if delivered and through == delivered[0].position - 1:
        return records + delivered, delivered[-1].position
    return records, through


def first_gap(tenant: str, after: int, records: Sequence[Record]) -> Gap:
    """The first gap between records, which begin after a position."""
    position = after
    for record in records:
        if record.position != position + 1:
            break
        position = record.position
    return Gap(tenant, position + 1, record.position - 1)
