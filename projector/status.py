"""Status: the log and the tables of every tenant, side by side.

It says which tenants are stuck, and why.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence

import msgspec

from projector.divergence import DeletedTenantHasLog, TenantUnknown, disagreements
from projector.live.worker import group_of
from projector.projection import NO_CHECKPOINT, Checkpoint
from projector.store import Store
from streams import Log, LogSummary, keys_of
from streams.keys import PARTITIONS, leases_key

STUCK_SECONDS = 10.0


class TenantStatus(msgspec.Struct, frozen=True):
    """A tenant's records, rows and lag, and what was not accepted.

    Each record is a row, a late duplicate, quarantined, dropped (or the control record that says so), erased, or lag. `rows` is
    what is left of the others; `verify` counts the rows. `sessions` is None when they were not counted, `stuck` is None when
    nothing is wrong.
    """

    tenant: str
    records: int
    rows: int
    sessions: int | None
    lag_records: int
    lag_seconds: float
    late_duplicates: int
    quarantined: int
    dropped: int
    erased: int
    stuck: str | None
    duplicate: int
    conflict: int
    rejected: int
    limited: int


class Totals(msgspec.Struct, frozen=True):
    """Sums over tenants; `lagging` and `stuck` count tenants."""

    tenants: int
    records: int
    rows: int
    lag_records: int
    lagging: int
    quarantined: int
    stuck: int


async def status(log: Log, store: Store, *, tenants: Sequence[str] = (), with_sessions: bool = True) -> list[TenantStatus]:
    """The status of all tenants, or of some, by name.

    To count sessions takes time for each session that exists. Raises TenantUnknown, LogUnavailable, StoreUnavailable.
    """
    partitions = sorted({keys_of(tenant).partition for tenant in tenants}) or range(PARTITIONS)
    logs = {summary.tenant: summary for summary in await log.summaries(partitions) if not tenants or summary.tenant in tenants}
    counts = await asyncio.to_thread(store.queries.counts, logs)
    checkpoints = {tenant: at for tenant, at in counts.checkpoints.items() if not tenants or tenant in tenants}
    names = sorted(logs.keys() | checkpoints.keys())
    for tenant in tenants:
        if tenant not in names:
            raise TenantUnknown(tenant)
    sessions = await asyncio.to_thread(store.queries.session_counts, names if tenants else None) if with_sessions else {}
    summaries = [logs.get(tenant, LogSummary(tenant, 0, 0)) for tenant in names]
    reasons = await _reasons(log, summaries, checkpoints, counts.deleted)
    ages = await _ages_seconds(log, summaries, checkpoints)
    reasons = await _waiting_reasons(log, store, [name for name, age in ages.items() if age >= STUCK_SECONDS]) | reasons
    return [
        _status_of(
            summary,
            checkpoints.get(summary.tenant, NO_CHECKPOINT),
            quarantined=counts.quarantined.get(summary.tenant, 0),
            sessions=sessions.get(summary.tenant, 0) if with_sessions else None,
            age_seconds=ages.get(summary.tenant, 0.0),
            stuck=reasons.get(summary.tenant),
        )
        for summary in summaries
    ]


def totals(statuses: Sequence[TenantStatus]) -> Totals:
    """The sums over tenants."""
    return Totals(
        tenants=len(statuses),
        records=sum(entry.records for entry in statuses),
        rows=sum(entry.rows for entry in statuses),
        lag_records=sum(entry.lag_records for entry in statuses),
        lagging=sum(entry.lag_records > 0 for entry in statuses),
        quarantined=sum(entry.quarantined for entry in statuses),
        stuck=sum(entry.stuck is not None for entry in statuses),
    )


def _status_of(
    summary: LogSummary, checkpoint: Checkpoint, *, quarantined: int, sessions: int | None, age_seconds: float, stuck: str | None
) -> TenantStatus:
    no_rows = checkpoint.late_duplicates + quarantined + checkpoint.dropped + checkpoint.erased
    return TenantStatus(
        tenant=summary.tenant,
        records=summary.last,
        rows=checkpoint.position - no_rows,
        sessions=sessions,
        lag_records=max(0, summary.last - checkpoint.position),
        lag_seconds=round(age_seconds, 3),
        late_duplicates=checkpoint.late_duplicates,
        quarantined=quarantined,
        dropped=checkpoint.dropped,
        erased=checkpoint.erased,
        stuck=stuck,
        **msgspec.structs.asdict(summary.counts),
    )


async def _reasons(
    log: Log, summaries: Sequence[LogSummary], checkpoints: Mapping[str, Checkpoint], deleted: Sequence[str]
) -> dict[str, str]:
    """Why a log does not belong to the tables, by tenant."""
    errors = await disagreements(log, summaries, checkpoints) | {tenant: DeletedTenantHasLog(tenant) for tenant in deleted}
    return {tenant: str(error) for tenant, error in errors.items()}


async def _ages_seconds(log: Log, summaries: Sequence[LogSummary], checkpoints: Mapping[str, Checkpoint]) -> dict[str, float]:
    """How long the oldest unapplied record of each tenant waits."""
    nexts = {summary.tenant: checkpoints.get(summary.tenant, NO_CHECKPOINT).position + 1 for summary in summaries}
    places = [(summary.tenant, nexts[summary.tenant]) for summary in summaries if summary.last >= nexts[summary.tenant]]
    oldest = await log.find_each(places)
    now = time.time()
    return {
        tenant: max(0.0, now - record.received_at_us / 1_000_000)
        for (tenant, _), record in zip(places, oldest, strict=True)
        if record and record.received_at_us
    }


async def _waiting_reasons(log: Log, store: Store, tenants: Sequence[str]) -> dict[str, str]:
    """Why tenants wait whose log does belong to the tables."""
    group = group_of(store)
    commands = [("HGET", leases_key(keys_of(tenant).partition, group), tenant) for tenant in tenants]
    owners = await log.connection.call_each(commands)
    return {
        tenant: f"leased to {owner.decode()}" if isinstance(owner, bytes) else "no projector has its lease: is one running?"
        for tenant, owner in zip(tenants, owners, strict=True)
    }
