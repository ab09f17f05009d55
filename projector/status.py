"""Status: what every tenant's log and tables say, side by side, and what is stuck and why."""

import time
from collections.abc import Mapping, Sequence

import msgspec

from projector.guard import disagreements
from projector.sqlite import SqliteStore
from projector.tables import NOTHING, Checkpoint
from projector.worker import group_of
from streams import Log, Survey, keys_of, leases_key

STUCK_SECONDS = 10.0


class TenantStatus(msgspec.Struct, frozen=True):
    """One tenant: records in its log, rows in its tables, and the distance between them. `stuck` is None when all is well."""

    tenant: str
    records: int
    rows: int
    sessions: int
    lag_records: int
    lag_seconds: float
    late_duplicates: int
    quarantined: int
    stuck: str | None


async def status(log: Log, store: SqliteStore) -> list[TenantStatus]:
    """The status of every tenant that the log or the tables know, by name."""
    logs = {survey.tenant: survey for survey in await log.survey()}
    with store.reading() as connection:
        checkpoints = store.tables_over(connection).checkpoints()
        counted = "SELECT tenant_id, count(*) FROM {} GROUP BY tenant_id"
        sessions = dict(connection.execute(counted.format("event_sessions")).fetchall())
        quarantined = dict(connection.execute(counted.format("quarantine")).fetchall())
    surveys = [logs.get(tenant, Survey(tenant, 0, 0)) for tenant in sorted(logs.keys() | checkpoints.keys())]
    wrong = await disagreements(log, surveys, checkpoints)
    ages = await _ages_seconds(log, surveys, checkpoints)
    found = []
    for survey in surveys:
        tenant, age = survey.tenant, ages.get(survey.tenant, 0.0)
        checkpoint = checkpoints.get(tenant, NOTHING)
        set_aside = quarantined.get(tenant, 0)
        waits_for = await _waits_for(log, store, tenant) if age >= STUCK_SECONDS else None
        found.append(
            TenantStatus(
                tenant=tenant,
                records=survey.last,
                sessions=sessions.get(tenant, 0),
                rows=checkpoint.position - checkpoint.late_duplicates - set_aside,
                lag_records=max(0, survey.last - checkpoint.position),
                lag_seconds=round(age, 3),
                late_duplicates=checkpoint.late_duplicates,
                quarantined=set_aside,
                stuck=str(wrong[tenant]) if tenant in wrong else waits_for,
            )
        )
    return found


async def _ages_seconds(log: Log, surveys: Sequence[Survey], checkpoints: Mapping[str, Checkpoint]) -> dict[str, float]:
    """How long the oldest record behind the checkpoint has waited, of each tenant that has one."""
    nexts = {survey.tenant: checkpoints.get(survey.tenant, NOTHING).position + 1 for survey in surveys}
    places = [(survey.tenant, nexts[survey.tenant]) for survey in surveys if survey.last >= nexts[survey.tenant]]
    oldest = await log.find_each(places)
    now = time.time()
    return {
        tenant: max(0.0, now - record.received_at_us / 1_000_000)
        for (tenant, _), record in zip(places, oldest, strict=True)
        if record and record.received_at_us
    }


async def _waits_for(log: Log, store: SqliteStore, tenant: str) -> str:
    """Why a tenant waits."""
    partition = keys_of(tenant).partition
    holder = await log.wire.call("HGET", leases_key(partition, group_of(store)), tenant)
    return f"taken by {holder.decode()}" if holder else "no projector takes it: is one running?"
