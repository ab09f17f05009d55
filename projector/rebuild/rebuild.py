"""Rebuild and rollback: another set becomes the live set.

A rebuild reads the log into a shadow set; a rollback catches the previous set up. Everything goes on meanwhile, and at each
moment readers see one whole set.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from projector.divergence import TenantUnknown, disagreements
from projector.projection import NO_CHECKPOINT, Checkpoint
from projector.rebuild.batches import Span
from projector.rebuild.replay import replay
from projector.rebuild.swap import BREATH_SECONDS, swap
from projector.store import PREVIOUS, SHADOW, SetName, Store
from streams import Log, LogSummary
from streams.errors import Gap, PenstockError
from streams.runtime import failpoint

Progress = Callable[[int, int], None]  # records done, records in all


class RebuildRefused(PenstockError):
    """The log cannot give the tables again; each reason names the positions that are missing."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("refused, nothing was changed: " + "; ".join(reasons))
        self.reasons = list(reasons)


class NothingToRollBack(PenstockError):
    """There are no previous tables: no rebuild has been completed, or they were rolled back from."""


class Rebuilt(msgspec.Struct, frozen=True):
    """What a rebuild or rollback read, and how long it took."""

    tenants: int
    records: int
    seconds: float


async def rebuild(
    log: Log, store: Store, *, tenants: Sequence[str] = (), accept_loss: bool = False, progress: Progress | None = None
) -> Rebuilt:
    """Rebuild the tables from the log, of all tenants or of some.

    Raises RebuildRefused, RebuildRunning, OtherProjection (with `tenants`), LogUnavailable, StoreUnavailable. It can end
    at any moment: the live tables are as they were until the swap, which is one transaction.
    """
    started = time.monotonic()
    with store.rebuilding():
        if tenants:
            store.check_version()
        live = store.checkpoints()  # before the summary: what is applied meanwhile is no loss
        summaries = await _summaries(log, store, tenants)
        if not accept_loss:
            await _refuse_losses(log, store, summaries, live)
        # one tenant's tables go among those of others, which have a gap already
        session_gap_us = store.session_gap_us() if tenants else None
        store.create_shadow(records=0 if tenants else sum(summary.last for summary in summaries), session_gap_us=session_gap_us)
        records = await _fill(log, store, SHADOW, summaries, accept_loss, progress)
        if not tenants:
            store.index_shadow()
        failpoint("before_swap")
        await swap(log, store, SHADOW, tenants or None, accept_loss=accept_loss)
        failpoint("after_swap")
        store.drop_leftovers()
    return Rebuilt(len(summaries), records, time.monotonic() - started)


async def rollback(log: Log, store: Store, *, progress: Progress | None = None) -> Rebuilt:
    """Bring the previous tables back, caught up with the log.

    The live ones become the previous.

    Raises NothingToRollBack, RebuildRefused, RebuildRunning, OtherProjection, LogUnavailable, StoreUnavailable.
    """
    started = time.monotonic()
    with store.rebuilding():
        if not store.has_set(PREVIOUS):
            raise NothingToRollBack()
        store.check_version(PREVIOUS)
        live = store.checkpoints()
        summaries = await _summaries(log, store, ())
        await _refuse_losses(log, store, summaries, live, begin=PREVIOUS)
        records = await _fill(log, store, PREVIOUS, summaries, False, progress)
        await swap(log, store, PREVIOUS, None, accept_loss=False)
    return Rebuilt(len(summaries), records, time.monotonic() - started)


async def _summaries(log: Log, store: Store, tenants: Sequence[str]) -> list[LogSummary]:
    """The summary of each tenant's log.

    They are the named tenants, or all that the log or the tables know, without deleted tenants.
    """
    summaries = {summary.tenant: summary for summary in await log.summaries()}
    for tenant in store.deleted_among(summaries):
        del summaries[tenant]
    for tenant in store.checkpoints():
        summaries.setdefault(tenant, LogSummary(tenant, 0, 0))
    unknown = [tenant for tenant in tenants if tenant not in summaries]
    if unknown:
        raise RebuildRefused([str(TenantUnknown(tenant)) for tenant in unknown])
    return [summaries[tenant] for tenant in sorted(tenants or summaries)]


async def _refuse_losses(
    log: Log, store: Store, summaries: Sequence[LogSummary], live: Mapping[str, Checkpoint], *, begin: SetName | None = None
) -> None:
    """Check that the log can give the tables again.

    Raises RebuildRefused when it ends before the tables, holds other records than they do, or has a gap.
    """
    begins = store.checkpoints(begin) if begin is not None else {}
    reasons = []
    wrong = await disagreements(log, summaries, live)
    for summary in summaries:
        if summary.tenant in wrong:
            reasons.append(str(wrong[summary.tenant]))
        if summary.has_gap:
            after = begins.get(summary.tenant, NO_CHECKPOINT).position
            gaps = [gap for gap in await log.gaps(summary) if gap[1] > after]
            reasons += [str(Gap(summary.tenant, *gap)) for gap in gaps]
    if reasons:
        raise RebuildRefused(reasons)


async def _fill(
    log: Log, store: Store, name: SetName, summaries: Sequence[LogSummary], accept_loss: bool, progress: Progress | None
) -> int:
    """Apply to a set of tables what the log holds after its checkpoints.

    Returns how many records.
    """
    begins = store.checkpoints(name)
    spans = [Span(summary.tenant, begins.get(summary.tenant, NO_CHECKPOINT).position, summary.last) for summary in summaries]
    total = sum(max(0, span.through - span.after) for span in spans)
    applied = 0
    async for chunk in replay(log, spans, store.staging_folder, accept_loss=accept_loss):
        store.write(name, chunk)
        failpoint("during_rebuild")
        applied += chunk.records
        if progress:
            progress(applied, total)
        await asyncio.sleep(BREATH_SECONDS)
    return applied
