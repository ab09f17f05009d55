"""Carry: the records of a log into an archive that is to have them; those that it has already are compared, one by one.

So what was carried once and interrupted is gone on with, and two histories never become one.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from streams import Record
from streams.archive import SEGMENT_BYTES, SEGMENT_RECORDS, Archive
from streams.errors import PenstockError


class RecordsDiffer(PenstockError):
    """Two histories of one log: at a position one has another record than the other, or none."""

    def __init__(self, tenant: str, position: int) -> None:
        super().__init__(f"the log of {tenant} has another record at position {position} than the backup")
        self.tenant = tenant
        self.position = position


class Comparison:
    """Compares records, page after page from the first on, with those of an archive."""

    def __init__(self, tenant: str, archive: Archive) -> None:
        self._tenant = tenant
        self._pages = archive.read(tenant, 0)
        self._waiting: list[Record] = []

    async def see(self, page: list[Record]) -> None:
        """Raises RecordsDiffer at the first record that is another there, or none; DamagedArchive, ArchiveUnavailable."""
        while len(self._waiting) < len(page) and (more := await asyncio.to_thread(next, self._pages, None)):
            self._waiting += more
        theirs = self._waiting[: len(page)]
        if page != theirs:
            same = [mine == other for mine, other in zip(page, theirs, strict=False)]
            first = same.index(False) if False in same else len(theirs)
            raise RecordsDiffer(self._tenant, page[first].position)
        del self._waiting[: len(page)]


async def pages_of(archive: Archive, tenant: str, *, after: int = 0, through: int) -> AsyncGenerator[list[Record], None]:
    """Pages of archived records behind a position, up to another. Raises DamagedArchive, ArchiveUnavailable."""
    pages = archive.read(tenant, after)
    while page := await asyncio.to_thread(next, pages, None):
        wanted = [record for record in page if record.position <= through]
        if wanted:
            yield wanted
        if page[-1].position >= through:
            return


async def carry(
    pages: AsyncIterator[list[Record]], archive: Archive, tenant: str, *, show: Callable[[int], None] = lambda done: None
) -> tuple[int, int]:
    """See that an archive has the records of pages, which begin at position 1 or just behind what it has; the last position
    that they reached, and how many were added. Raises RecordsDiffer, ArchiveMoved, DamagedArchive, ArchiveUnavailable."""
    has = (await asyncio.to_thread(archive.manifest, tenant)).through
    comparison = Comparison(tenant, archive)
    batch: list[Record] = []
    size = reached = added = 0
    async for page in pages:
        known = min(len(page), max(0, has - page[0].position + 1))
        await comparison.see(page[:known])
        for record in page[known:]:
            if len(batch) == SEGMENT_RECORDS or (batch and size + len(record.body) > SEGMENT_BYTES):
                await asyncio.to_thread(archive.add, tenant, batch)
                batch, size = [], 0
            batch.append(record)
            size += len(record.body)
        added += len(page) - known
        reached = page[-1].position
        show(len(page))
    if batch:
        await asyncio.to_thread(archive.add, tenant, batch)
    return reached, added
