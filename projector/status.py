"""Status: what every tenant's log and tables say, side by side, and what is stuck and why."""

import time

import msgspec

from projector.guard import LogBehind, LogDiffers, differs
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
    surveys = {survey.tenant: survey for survey in await log.survey()}
    with store.reading() as connection:
        checkpoints = store.tables_over(connection).checkpoints()
        counted = "SELECT tenant_id, count(*) FROM {} GROUP BY tenant_id"
        sessions = dict(connection.execute(counted.format("event_sessions")).fetchall())
        quarantined = dict(connection.execute(counted.format("quarantine")).fetchall())
    found = []
    for tenant in sorted(surveys.keys() | checkpoints.keys()):
        survey = surveys.get(tenant, Survey(tenant, 0, 0))
        checkpoint = checkpoints.get(tenant, NOTHING)
        set_aside = quarantined.get(tenant, 0)
        age = await _age_seconds(log, survey, checkpoint)
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
                stuck=await _stuck(log, store, survey, checkpoint, age),
            )
        )
    return found


async def _age_seconds(log: Log, survey: Survey, checkpoint: Checkpoint) -> float:
    """How long the oldest record behind the checkpoint has waited."""
    if survey.last <= checkpoint.position:
        return 0.0
    oldest = await log.find(survey.tenant, checkpoint.position + 1)
    return max(0.0, time.time() - oldest.received_at_us / 1_000_000) if oldest and oldest.received_at_us else 0.0


async def _stuck(log: Log, store: SqliteStore, survey: Survey, checkpoint: Checkpoint, age: float) -> str | None:
    """Why a tenant does not move on, or None."""
    if survey.last < checkpoint.position:
        return str(LogBehind(survey.tenant, survey.last, checkpoint.position))
    if checkpoint.position and differs(await log.find(survey.tenant, checkpoint.position), checkpoint):
        return str(LogDiffers(survey.tenant, checkpoint.position))
    if age < STUCK_SECONDS:
        return None
    partition = keys_of(survey.tenant).partition
    holder = await log.wire.call("HGET", leases_key(partition, group_of(store)), survey.tenant)
    return f"taken by {holder.decode()}" if holder else "no projector takes it: is one running?"
