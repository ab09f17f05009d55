"""Verify: whether every log is whole, from its first position to its last, wherever its records are."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from streams.errors import Gap
from streams.log import Log, LogSummary


async def problems(log: Log, tenants: Sequence[str] = ()) -> AsyncIterator[str]:
    """What is damaged or missing, one sentence each; of all tenants, or of some. Raises LogUnavailable."""
    summaries = {summary.tenant: summary for summary in await log.summaries()}
    archive = None
    if log.archive_url:
        from streams.archive.store import Archive  # pyarrow takes half a second to load

        archive = await asyncio.to_thread(Archive, log.archive_url)
        for tenant in await asyncio.to_thread(archive.tenants):
            summaries.setdefault(tenant, LogSummary(tenant, 0, 0))
    for tenant in sorted(tenants or summaries):
        summary = summaries.get(tenant, LogSummary(tenant, 0, 0))
        archived = 0
        if archive is not None:
            found = await asyncio.to_thread(list, archive.problems(tenant))
            for problem in found:
                yield problem
            if found:
                continue  # what it holds is said; the rest cannot be read past it
            archived = (await asyncio.to_thread(archive.manifest, tenant)).through
        if summary.last < archived:
            yield f"the log of {tenant} ends at position {summary.last}, its archive at {archived}"
        for first, last in await log.gaps(summary):
            yield str(Gap(tenant, first, last))
