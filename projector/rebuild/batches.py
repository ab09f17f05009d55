"""Batches read from the log, in order, tenant by tenant."""

from collections.abc import AsyncIterator, Sequence

import msgspec

from projector.projection import Batch, project
from streams import Log, Record
from streams.errors import Gap

BATCH_RECORDS = 5_000  # of one tenant: many small batches would look the same sessions up many times
BATCH_BYTES = 4 * 1024 * 1024
CHUNK_RECORDS = 10_000
CHUNK_BYTES = 8 * 1024 * 1024


class Span(msgspec.Struct, frozen=True):
    """What to replay of a tenant: positions `after` + 1 to `through`.

    With `before_us`, only the records before the first one that was received then or later. Times of receipt need not rise from
    record to record, so a record after that one may have an earlier time.
    """

    tenant: str
    after: int
    through: int
    before_us: int | None = None


async def read(log: Log, spans: Sequence[Span], *, accept_loss: bool) -> AsyncIterator[Batch]:
    """The batches of spans, in order, read and projected in this process.

    Raises Gap unless losses are accepted.
    """
    for span in spans:
        async for batch in _read(log, span, accept_loss):
            yield batch


async def _read(log: Log, span: Span, accept_loss: bool) -> AsyncIterator[Batch]:
    """The batches of one span."""
    position, through = span.after, span.through
    while position < through:
        records: list[Record] = []
        size = 0
        lost: Gap | None = None
        try:
            async for page in log.read(span.tenant, position, through=through):
                kept = _received_before(page, span.before_us)
                records += kept
                if len(kept) < len(page):
                    through = page[len(kept)].position - 1
                    break
                size += sum([len(record.body) for record in page])
                if len(records) >= BATCH_RECORDS or size >= BATCH_BYTES:
                    yield project(span.tenant, position, records, records[-1].position)
                    position, records, size = records[-1].position, [], 0
        except Gap as gap:
            lost = gap
        if records:
            yield project(span.tenant, position, records, records[-1].position)
            position = records[-1].position
        if lost is not None:
            if not accept_loss:
                raise lost
            yield project(span.tenant, position, [], lost.last)
            position = lost.last


def _received_before(records: list[Record], moment_us: int | None) -> list[Record]:
    """The records before the first one that was received at a time or later."""
    if moment_us is None:
        return records
    late = (i for i, record in enumerate(records) if record.received_at_us >= moment_us)
    return records[: next(late, len(records))]


async def gathered(batches: AsyncIterator[Batch]) -> AsyncIterator[list[Batch]]:
    """Batches in lists that fill about one transaction, by records or bytes."""
    gathered: list[Batch] = []
    records = size = 0
    async for batch in batches:
        gathered.append(batch)
        records += batch.through - batch.after
        size += sum([len(row.properties) for row in batch.rows]) + sum([len(row.body) for row in batch.quarantined])
        size += sum([8 * len(placed.control_record.positions) for placed in batch.control_records])
        if records >= CHUNK_RECORDS or size >= CHUNK_BYTES:
            yield gathered
            gathered, records, size = [], 0, 0
    if gathered:
        yield gathered
