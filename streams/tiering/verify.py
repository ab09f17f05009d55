"""Verify: whether every log is whole, from its first position to its last, wherever its records are."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from streams.log import Gap, Log, Survey


async def problems(log: Log, tenants: Sequence[str] = ()) -> AsyncIterator[str]:
    """What is damaged or missing, one sentence each; of all tenants, or of some. Raises LogUnavailable."""
    surveys = {survey.tenant: survey for survey in await log.survey()}
    archive = None
    if log.archive_url:
        from streams.archive.store import Archive  # pyarrow takes half a second to load

        archive = await asyncio.to_thread(Archive, log.archive_url)
        for tenant in await asyncio.to_thread(archive.tenants):
            surveys.setdefault(tenant, Survey(tenant, 0, 0))
    for tenant in sorted(tenants or surveys):
        survey = surveys.get(tenant, Survey(tenant, 0, 0))
        archived = 0
        if archive is not None:
            found = await asyncio.to_thread(list, archive.problems(tenant))
            for problem in found:
                yield problem
            if found:
                continue  # what it holds is said; the rest cannot be read past it
            archived = (await asyncio.to_thread(archive.manifest, tenant)).through
        if survey.last < archived:
            yield f"the log of {tenant} ends at position {survey.last}, its archive at {archived}"
        for first, last in await log.gaps(survey):
            yield str(Gap(tenant, first, last))
