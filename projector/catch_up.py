"""Catching up: waiting until the tables have what a log has."""

import asyncio
import time

from projector.divergence import DeletedTenantHasLog, disagreements
from projector.projection import NO_CHECKPOINT
from projector.rebuild import Span, read
from projector.store import Store
from streams import Log, LogSummary, keys_of

LOOK_SECONDS = 0.02
PATIENCE_SECONDS = 1.0  # for running projectors; when no projector moves the checkpoint for so long, this process applies


async def catch_up(log: Log, store: Store, tenant: str, *, seconds: float) -> bool:
    """Wait until the tables have all that a tenant's log has now.

    Returns False when that takes longer.

    Raises LogTruncated, LogDiffers, DeletedTenantHasLog, Gap.
    """
    state = store.states([tenant])[tenant]
    summaries = [summary for summary in await log.summaries([keys_of(tenant).partition]) if summary.tenant == tenant]
    [summary] = summaries or [LogSummary(tenant, 0, 0)]
    if state.deleted and summary.last:
        raise DeletedTenantHasLog(tenant)
    for error in (await disagreements(log, [summary], {tenant: state.checkpoint})).values():
        raise error
    return await wait_until_applied(log, store, tenant, summary.last, seconds=seconds)


async def lagging_tenants(log: Log, store: Store) -> list[str]:
    """The tenants whose tables lag behind their logs. Raises LogUnavailable."""
    checkpoints = store.checkpoints()
    return [
        summary.tenant
        for summary in await log.summaries()
        if summary.last > checkpoints.get(summary.tenant, NO_CHECKPOINT).position
    ]


async def wait_until_applied(log: Log, store: Store, tenant: str, position: int, *, seconds: float) -> bool:
    """Wait until a tenant's tables are at a position.

    Returns False when that takes longer.

    Running projectors apply the records, or this process where none does. Both at once do no harm: a batch that does not begin
    at the checkpoint is not written.
    """
    deadline = time.monotonic() + seconds
    seen, patient_until = -1, 0.0
    while (checkpoint := store.checkpoint(tenant).position) < position:
        now = time.monotonic()
        if now > deadline:
            return False
        if checkpoint != seen:
            seen, patient_until = checkpoint, now + PATIENCE_SECONDS
        if now < patient_until:
            await asyncio.sleep(LOOK_SECONDS)
            continue
        async for batch in read(log, [Span(tenant, checkpoint, position)], accept_loss=False):
            if not store.apply([batch])[0] or time.monotonic() > deadline:
                break
    return True
