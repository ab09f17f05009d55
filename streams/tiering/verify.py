"""Verify: whether each log is whole, on the server and in the archive."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from streams.archive import Archive
from streams.errors import Gap
from streams.log import Log, LogSummary


async def problems(log: Log, tenants: Sequence[str] = ()) -> AsyncIterator[str]:
    """What is damaged or missing, a sentence for each problem.

    Of all tenants, or of the given ones. Raises ArchiveUnavailable, LogUnavailable.
    """
    summaries = {summary.tenant: summary for summary in await log.summaries()}
    archive = await asyncio.to_thread(Archive, log.archive_url) if log.archive_url else None
    if archive is not None:
        for tenant in await asyncio.to_thread(archive.tenants):
            summaries.setdefault(tenant, LogSummary(tenant, 0, 0))
    for tenant in sorted(tenants or summaries):
        summary = summaries.get(tenant, LogSummary(tenant, 0, 0))
        archived = 0
        if archive is not None:
            of_archive = await asyncio.to_thread(list, archive.problems(tenant))
            for problem in of_archive:
                yield problem
            if of_archive:
                continue  # the log cannot be read past the damage
            archived = (await asyncio.to_thread(archive.manifest, tenant)).through
        if summary.last < archived:
            yield f"the log of {tenant} ends at position {summary.last}, its archive at {archived}"
        for first, last in await log.gaps(summary):
            yield str(Gap(tenant, first, last))
