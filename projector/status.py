"""Status: what every tenant's log and tables say, side by side, and what is stuck and why."""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from projector.divergence import DeletedTenantHasLog, disagreements
from projector.live.worker import group_of
from projector.projection import NO_CHECKPOINT, Checkpoint
from projector.store import Store
from streams import Log, LogSummary, keys_of
from streams.keys import leases_key

STUCK_SECONDS = 10.0


class TenantStatus(msgspec.Struct, frozen=True):
    """One tenant: records in its log, rows in its tables, the distance between them, and what the door did not accept. Each
    record is a row, a late duplicate, quarantined, dropped (or the note that says so), erased, or lag: verify counts the rows,
    here they are what is left. `sessions` is None when nobody asked for them, `stuck` when all is well."""

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


async def status(log: Log, store: Store, *, with_sessions: bool = True) -> list[TenantStatus]:
    """What is so of every tenant, by name. To count sessions takes as long as there are many."""
    logs = {summary.tenant: summary for summary in await log.summaries()}
    checkpoints, quarantined, sessions, erased = await asyncio.to_thread(_of_tables, store, logs, with_sessions)
    summaries = [logs.get(tenant, LogSummary(tenant, 0, 0)) for tenant in sorted(logs.keys() | checkpoints.keys())]
    wrong = await disagreements(log, summaries, checkpoints) | {tenant: DeletedTenantHasLog(tenant) for tenant in erased}
    ages = await _ages_seconds(log, summaries, checkpoints)
    found = []
    for summary in summaries:
        tenant, age = summary.tenant, ages.get(summary.tenant, 0.0)
        checkpoint = checkpoints.get(tenant, NO_CHECKPOINT)
        make = quarantined.get(tenant, 0)
        waits_for = await _waits_for(log, store, tenant) if age >= STUCK_SECONDS else None
        found.append(
            TenantStatus(
                tenant=tenant,
                records=summary.last,
                sessions=sessions.get(tenant, 0) if with_sessions else None,
                rows=checkpoint.position - checkpoint.late_duplicates - make - checkpoint.dropped - checkpoint.erased,
                lag_records=max(0, summary.last - checkpoint.position),
                lag_seconds=round(age, 3),
                late_duplicates=checkpoint.late_duplicates,
                quarantined=make,
                dropped=checkpoint.dropped,
                erased=checkpoint.erased,
                stuck=str(wrong[tenant]) if tenant in wrong else waits_for,
                **msgspec.structs.asdict(summary.counts),
            )
        )
    return found


def _of_tables(
    store: Store, logs: Iterable[str], with_sessions: bool
) -> tuple[dict[str, Checkpoint], dict[str, int], dict[str, int], list[str]]:
    """Checkpoints, how many records are in quarantine and how many sessions there are, by tenant, and who was erased and has a
    log again; of one snapshot."""
    counts = store.queries.counts(logs)
    sessions = store.queries.session_counts() if with_sessions else {}
    return counts.checkpoints, counts.quarantined, sessions, counts.deleted


async def _ages_seconds(log: Log, summaries: Sequence[LogSummary], checkpoints: Mapping[str, Checkpoint]) -> dict[str, float]:
    """How long the oldest record behind the checkpoint has waited, of each tenant that has one."""
    nexts = {summary.tenant: checkpoints.get(summary.tenant, NO_CHECKPOINT).position + 1 for summary in summaries}
    places = [(summary.tenant, nexts[summary.tenant]) for summary in summaries if summary.last >= nexts[summary.tenant]]
    oldest = await log.find_each(places)
    now = time.time()
    return {
        tenant: max(0.0, now - record.received_at_us / 1_000_000)
        for (tenant, _), record in zip(places, oldest, strict=True)
        if record and record.received_at_us
    }


async def _waits_for(log: Log, store: Store, tenant: str) -> str:
    """Why a tenant waits."""
    partition = keys_of(tenant).partition
    lease_owner = await log.connection.call("HGET", leases_key(partition, group_of(store)), tenant)
    return f"taken by {lease_owner.decode()}" if lease_owner else "no projector takes it: is one running?"
