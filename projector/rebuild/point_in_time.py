"""The tables as they were at a time or a position, in a new file."""

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from projector.divergence import TenantUnknown, disagreements
from projector.rebuild.batches import Span
from projector.rebuild.rebuild import Progress, RebuildRefused, Rebuilt
from projector.rebuild.replay import replay
from projector.store import SHADOW, OutputExists, ScratchStore, Store, StoreUnavailable, open_scratch
from projector.store.files import publish
from streams import Log, LogSummary

CACHE_MIB = 64


class Cut(msgspec.Struct, frozen=True):
    """Where each tenant's log is cut.

    Before its first record that was received at `before_us` or later, and after `position` at the latest.
    """

    before_us: int | None = None
    position: int | None = None


async def write(
    log: Log,
    store: Store,
    path: str,
    cut: Cut,
    *,
    tenants: Sequence[str] = (),
    accept_loss: bool = False,
    progress: Progress | None = None,
) -> Rebuilt:
    """Make a database of what the tables were at a cut.

    It has all tenants or some, but no tenant that was deleted from the tables of `store`. It appears at the path when it is
    complete, or not at all.

    The live tables are not written to. Raises OutputExists, TenantUnknown, RebuildRefused when the log is not that of the
    tables or ends before the position, Gap, LogUnavailable, StoreUnavailable.
    """
    started = time.monotonic()
    if os.path.lexists(path):
        raise OutputExists(path)
    summaries = await _summaries(log, store, tenants)
    if not accept_loss:
        wrong = await disagreements(log, summaries, store.checkpoints())
        if wrong:
            raise RebuildRefused([str(error) for error in wrong.values()])
    short = [summary for summary in summaries if summary.last < (cut.position or 0)]
    if short:
        raise RebuildRefused([f"the log of {summary.tenant} ends at position {summary.last}" for summary in short])
    spans = [Span(summary.tenant, 0, cut.position or summary.last, cut.before_us) for summary in summaries]
    target = Path(path).absolute()
    try:
        with tempfile.TemporaryDirectory(prefix=f"{target.name}.", dir=target.parent) as folder:
            part = str(Path(folder, "tables.db"))
            with open_scratch(part, cache_mib=CACHE_MIB, session_gap_us=store.session_gap_us()) as scratch:
                records = await _fill(log, scratch, spans, accept_loss, progress)
                filled = len(scratch.checkpoints())
            publish(part, path)
    except OSError as error:
        raise StoreUnavailable(str(error)) from error
    return Rebuilt(filled, records, time.monotonic() - started)


async def _summaries(log: Log, store: Store, tenants: Sequence[str]) -> list[LogSummary]:
    summaries = {summary.tenant: summary for summary in await log.summaries()}
    for tenant in store.deleted_among(summaries):
        del summaries[tenant]
    for tenant in tenants:
        if tenant not in summaries:
            raise TenantUnknown(tenant)
    return [summaries[tenant] for tenant in sorted(set(tenants) or summaries)]


async def _fill(log: Log, scratch: ScratchStore, spans: list[Span], accept_loss: bool, progress: Progress | None) -> int:
    """Replay into a shadow set; how many records.

    It gets its indexes last, and then is the only set.
    """
    filled, total = 0, sum(span.through for span in spans)
    scratch.create_shadow(records=total)
    async for chunk in replay(log, spans, scratch.staging_folder, accept_loss=accept_loss):
        scratch.write(SHADOW, chunk)
        filled += chunk.records
        if progress:
            progress(filled, total)
    scratch.index_shadow()
    scratch.keep_shadow_alone()
    if progress:
        progress(filled, filled)  # where a time ends a log is seen when it is read
    return filled
