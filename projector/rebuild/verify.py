"""Verify: a replay of the log compared with the live tables.

The replay goes into scratch tables; nothing is written to the live tables.
"""

import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec

from projector.divergence import LogTruncated, TenantUnknown
from projector.projection import NO_CHECKPOINT, Checkpoint
from projector.rebuild.batches import Span
from projector.rebuild.rebuild import Progress
from projector.rebuild.replay import replay
from projector.store import LIVE, ScratchStore, Snapshot, Store, open_scratch
from projector.store.structs import KEYS
from streams import Log

WHOLE = ("identity_links", "suppressions", "checkpoints")  # compared whole, whatever `since` says
SHOW_POSITIONS = 10_000
SCRATCH_CACHE_MIB = 32

Row = dict[str, Any]


class Since(msgspec.Struct, frozen=True):
    """Where a comparison begins.

    It is a position, or a tenant's first record that was received at a time or later.
    """

    position: int = 0
    received_at_us: int | None = None


FROM_THE_START = Since()


async def verify(
    log: Log,
    store: Store,
    *,
    tenants: Sequence[str] = (),
    since: Since = FROM_THE_START,
    replaying: Progress | None = None,
    comparing: Progress | None = None,
) -> AsyncIterator[str]:
    """What differs between the tables and the log, a sentence each.

    Compared are the tables of all tenants, or of some. With `since`, only events and quarantine from there on, sessions that
    have an event there, and the tables that are always compared whole. Memory does not grow with the tables. Raises
    TenantUnknown, LogUnavailable, StoreUnavailable.

    The log is replayed before the snapshot of the tables is taken, and only the rest while it lasts: a snapshot makes the WAL
    grow, so it is kept as short as the comparison.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-verify-") as folder:
        path, session_gap_us = str(Path(folder, "replayed.db")), store.session_gap_us()
        with open_scratch(path, cache_mib=SCRATCH_CACHE_MIB, session_gap_us=session_gap_us) as scratch:
            with store.snapshot() as now:
                first = _wanted(now, tenants)
            known = {summary.tenant for summary in await log.summaries()} | first.keys()
            for tenant in tenants:
                if tenant not in known:
                    raise TenantUnknown(tenant)
            await _replay(log, scratch, first, replaying)
            with store.snapshot() as live:
                checkpoints = _wanted(live, tenants)
                await _replay(log, scratch, checkpoints, replaying)
                with scratch.snapshot() as replayed:
                    for difference in _differences(live, replayed, checkpoints, since, comparing):
                        yield difference


def _wanted(tables: Snapshot, tenants: Sequence[str]) -> dict[str, Checkpoint]:
    return {tenant: at for tenant, at in tables.checkpoints().items() if not tenants or tenant in tenants}


async def _replay(log: Log, scratch: ScratchStore, goals: dict[str, Checkpoint], progress: Progress | None) -> None:
    known = scratch.checkpoints()
    spans = []
    for summary in await log.summaries():
        after = known.get(summary.tenant, NO_CHECKPOINT).position
        through = min(goals.get(summary.tenant, NO_CHECKPOINT).position, summary.last)
        if after < through:
            spans.append(Span(summary.tenant, after, through))
    replayed = sum(at.position for at in known.values())
    total = replayed + sum(span.through - span.after for span in spans)
    async for chunk in replay(log, spans, scratch.staging_folder, accept_loss=True):
        scratch.write(LIVE, chunk)
        replayed += chunk.records
        if progress:
            progress(replayed, total)


def _differences(
    live: Snapshot, replayed: Snapshot, checkpoints: dict[str, Checkpoint], since: Since, progress: Progress | None
) -> Iterator[str]:
    compared, total = 0, sum(at.position for at in checkpoints.values())
    for tenant, checkpoint in checkpoints.items():
        reached = replayed.checkpoint(tenant).position
        if reached < checkpoint.position:
            yield str(LogTruncated(tenant, reached, checkpoint.position))
        for position, difference in _compare(tenant, live, replayed, _begin(tenant, live, replayed, since)):
            if difference is not None:
                yield difference
            if progress and position % SHOW_POSITIONS == 0:
                progress(compared + position, total)
        yield from _ledger(tenant, live, checkpoint)
        compared += checkpoint.position
        if progress:
            progress(compared, total)


def _begin(tenant: str, live: Snapshot, replayed: Snapshot, since: Since) -> int:
    """The first position to compare, 0 for all.

    It is the first that either set received at the time.
    """
    if since.received_at_us is None:
        return since.position
    firsts = [tables.first_received(tenant, since.received_at_us) for tables in (live, replayed)]
    return min((position for position in firsts if position is not None), default=2**63 - 1)


def _compare(tenant: str, live: Snapshot, replayed: Snapshot, begin: int) -> Iterator[tuple[int, str | None]]:
    """The differences between a tenant's rows in two sets.

    They are found in one pass over both. Each comes with how far the pass is, in positions.
    """
    for table, columns in KEYS.items():
        key = ", ".join(columns)
        narrow = 0 if table in WHOLE else begin
        live_rows, replayed_rows = (tables.rows(table, tenant, begin=narrow) for tables in (live, replayed))
        for value, mine, other in _merged(live_rows, replayed_rows, columns):
            if narrow:  # a session may have an event there in one set alone
                mine = mine or live.row(table, tenant, value)
                other = other or replayed.row(table, tenant, value)
            words = None
            if other is None:
                words = f"{table} of {tenant}: {key} {value} is in the tables, not in the log"
            elif mine is None:
                words = f"{table} of {tenant}: {key} {value} is in the log, not in the tables"
            elif mine != other:
                words = f"{table} of {tenant}: {key} {value} differs: {_difference(mine, other)}"
            yield value if table == "events" else 1, words


def _merged(live: Iterator[Row], replayed: Iterator[Row], key: Sequence[str]) -> Iterator[tuple[Any, Row | None, Row | None]]:
    """Rows of both sets in order of their key, paired by key."""
    place = itemgetter(*key)
    mine, other = next(live, None), next(replayed, None)
    while mine is not None or other is not None:
        if other is None or (mine is not None and place(mine) < place(other)):
            assert mine is not None
            yield place(mine), mine, None
            mine = next(live, None)
        elif mine is None or place(other) < place(mine):
            yield place(other), None, other
            other = next(replayed, None)
        else:
            yield place(mine), mine, other
            mine, other = next(live, None), next(replayed, None)


def _ledger(tenant: str, live: Snapshot, checkpoint: Checkpoint) -> Iterator[str]:
    """The sum of counts, if it is not the checkpoint.

    Each position up to the checkpoint is in one table, or counted, once.
    """
    parts = {
        "rows": live.count("events", tenant),
        "late duplicates": checkpoint.late_duplicates,
        "quarantined": live.count("quarantine", tenant),
        "dropped": checkpoint.dropped,
        "erased": checkpoint.erased,
    }
    if sum(parts.values()) != checkpoint.position:
        words = " + ".join(f"{count} {name}" for name, count in parts.items())
        yield f"ledger of {tenant}: {words} = {sum(parts.values())}, the checkpoint is {checkpoint.position}"


def _difference(mine: Row, other: Row) -> str:
    return ", ".join(f"{name} is {mine[name]!r}, the log says {other[name]!r}" for name in mine if mine[name] != other[name])
