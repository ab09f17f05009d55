"""Incremental copy: add the new records of a log to an archive.

The records that the archive has already are compared, one by one. So a copy that was interrupted is continued, and two
different histories never become one.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from streams import Record
from streams.archive import SEGMENT_BYTES, SEGMENT_RECORDS, Archive
from streams.errors import PenstockError


class RecordsDiffer(PenstockError):
    """A log and a backup hold different records at a position."""

    def __init__(self, tenant: str, position: int) -> None:
        super().__init__(f"the log of {tenant} has another record at position {position} than the backup")
        self.tenant = tenant
        self.position = position


class Comparison:
    """Compares a log with an archive, page by page, from the start."""

    def __init__(self, tenant: str, archive: Archive) -> None:
        self._tenant = tenant
        self._pages = archive.read(tenant, 0)
        self._waiting: list[Record] = []

    async def compare(self, page: list[Record]) -> None:
        """Compare the next page.

        Raises RecordsDiffer at the first record that the archive holds otherwise or not at all; DamagedArchive,
        ArchiveUnavailable.
        """
        while len(self._waiting) < len(page) and (following := await asyncio.to_thread(next, self._pages, None)):
            self._waiting += following
        archived = self._waiting[: len(page)]
        if page != archived:
            same = [record == other for record, other in zip(page, archived, strict=False)]
            first = same.index(False) if False in same else len(archived)
            raise RecordsDiffer(self._tenant, page[first].position)
        del self._waiting[: len(page)]


async def pages_of(archive: Archive, tenant: str, *, after: int = 0, through: int) -> AsyncGenerator[list[Record], None]:
    """Pages of archived records after a position, up to another.

    Raises DamagedArchive, ArchiveUnavailable.
    """
    pages = archive.read(tenant, after)
    while page := await asyncio.to_thread(next, pages, None):
        records = [record for record in page if record.position <= through]
        if records:
            yield records
        if page[-1].position >= through:
            return


async def copy_log(
    pages: AsyncIterator[list[Record]], archive: Archive, tenant: str, *, show: Callable[[int], None] = lambda records: None
) -> tuple[int, int]:
    """Copy pages of records into an archive.

    The pages begin at position 1, or just after the archive's last position. Returns the last position that the pages reached,
    and how many records were added. Raises RecordsDiffer, ArchiveMoved, DamagedArchive, ArchiveUnavailable.
    """
    has = (await asyncio.to_thread(archive.manifest, tenant)).through
    comparison = Comparison(tenant, archive)
    batch: list[Record] = []
    size_bytes = reached = added = 0
    async for page in pages:
        known = min(len(page), max(0, has - page[0].position + 1))
        await comparison.compare(page[:known])
        for record in page[known:]:
            if len(batch) == SEGMENT_RECORDS or (batch and size_bytes + len(record.body) > SEGMENT_BYTES):
                await asyncio.to_thread(archive.add, tenant, batch)
                batch, size_bytes = [], 0
            batch.append(record)
            size_bytes += len(record.body)
        added += len(page) - known
        reached = page[-1].position
        show(len(page))
    if batch:
        await asyncio.to_thread(archive.add, tenant, batch)
    return reached, added
