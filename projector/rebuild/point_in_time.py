"""The tables as they were: the log replayed up to a time or a position, into a database of its own."""

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from projector.divergence import TenantUnknown, disagreements
from projector.rebuild.rebuild import Progress, RebuildRefused, Rebuilt
from projector.rebuild.replay import Span, replay
from projector.store.sqlite.connection import store_errors
from projector.store.sqlite.schema import LIVE, SHADOW
from projector.store.sqlite.store import SqliteStore
from streams import Log, LogSummary
from streams.errors import PenstockError

CACHE_MIB = 64


class OutputExists(PenstockError):
    """The file that shall be made is there already."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} is there already; nothing is written over")


class Cut(msgspec.Struct, frozen=True):
    """Where each tenant's log ends for this: before its first record that was received at a time or later, and not behind a
    position."""

    before_us: int | None = None
    position: int | None = None


async def write(
    log: Log,
    store: SqliteStore,
    path: str,
    cut: Cut,
    *,
    tenants: Sequence[str] = (),
    accept_loss: bool = False,
    progress: Progress | None = None,
) -> Rebuilt:
    """Make a database of what the tables were at a cut, of all tenants or of some. It is at the path when it is whole, or not at
    all. Who was erased from the tables of `store` is not in it.

    Nothing live is written to. Raises OutputExists, TenantUnknown, RebuildRefused when the log is not the one of the tables or
    ends before the position, Gap, LogUnavailable, StoreUnavailable.
    """
    started = time.monotonic()
    if os.path.lexists(path):
        raise OutputExists(path)
    summaries = await _summaries(log, store, tenants)
    if not accept_loss:
        wrong = await disagreements(log, summaries, store.tables(LIVE).checkpoints())
        if wrong:
            raise RebuildRefused([str(error) for error in wrong.values()])
    short = [summary for summary in summaries if summary.last < (cut.position or 0)]
    if short:
        raise RebuildRefused([f"the log of {summary.tenant} ends at position {summary.last}" for summary in short])
    spans = [Span(summary.tenant, 0, cut.position or summary.last, cut.before_us) for summary in summaries]
    with store_errors():
        whole = Path(path).absolute()
        with tempfile.TemporaryDirectory(prefix=f"{whole.name}.", dir=whole.parent) as folder:
            part = str(Path(folder, "tables.db"))
            with SqliteStore(part, cache_mib=CACHE_MIB, session_gap_us=store.session_gap_us()) as made:
                records = await _fill(log, made, spans, accept_loss, progress)
                there = len(made.tables().checkpoints())
            put(part, path)
    return Rebuilt(there, records, time.monotonic() - started)


async def _summaries(log: Log, store: SqliteStore, tenants: Sequence[str]) -> list[LogSummary]:
    live = store.tables(LIVE)
    summaries = {summary.tenant: summary for summary in await log.summaries() if not live.is_erased(summary.tenant)}
    for tenant in tenants:
        if tenant not in summaries:
            raise TenantUnknown(tenant)
    return [summaries[tenant] for tenant in sorted(set(tenants) or summaries)]


async def _fill(log: Log, made: SqliteStore, spans: list[Span], accept_loss: bool, progress: Progress | None) -> int:
    """Replay into a shadow set, which gets its indexes last and then is the only one; how many records."""
    done, total = 0, sum(span.through for span in spans)
    made.create_shadow(records=total)
    async for chunk in replay(log, spans, made.replay_folder, accept_loss=accept_loss):
        made.write(made.tables(SHADOW), chunk)
        done += chunk.records
        if progress:
            progress(done, total)
    made.index_shadow()
    made.keep_shadow_alone()
    if progress:
        progress(done, done)  # where a time ends a log is seen when it is read
    return done


def put(part: str, path: str) -> None:
    """Give a file its name, if nobody has it."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise OutputExists(path) from None
    except OSError:  # a file system without links
        if os.path.lexists(path):
            raise OutputExists(path) from None
        os.rename(part, path)
