"""What is in quarantine: looked at, tried again with the projection of this version, dropped by a note in the log."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import msgspec

from projector.divergence import DeletedTenantHasLog, disagreements
from projector.projection.project import QuarantineRow, content_of, row_of
from projector.rebuild.replay import Span, read
from projector.store.sqlite.connection import store_errors
from projector.store.sqlite.store import SqliteStore
from projector.store.sqlite.table_set import NO_CHECKPOINT, TableSet
from streams import DEAD_LETTER_VERSION, Log, LogSummary, Record, Rejected, control, dead_letter, failpoint, keys_of

PAGE_ROWS = 200
LOOK_SECONDS = 0.02
WAIT_SECONDS = 1.0  # for a projector that runs; where none moves the checkpoint for so long, this process does


class Entry(msgspec.Struct, frozen=True):
    """A record in quarantine without its bytes: how many there are."""

    tenant_id: str
    position: int
    received_at: str
    reason: str
    detail: str
    size_bytes: int


class Selection(msgspec.Struct, frozen=True):
    """Which records in quarantine are meant: all, or those of a tenant, at some positions, for a reason, up to a position."""

    tenant: str | None = None
    positions: Sequence[int] = ()
    reason: str | None = None
    through: int | None = None


class Forecast(msgspec.Struct, frozen=True):
    """What a record in quarantine would become: row, note, late_duplicate, conflict, invalid or lost; and why, in words."""

    tenant: str
    position: int
    outcome: str
    words: str

    @property
    def leaves(self) -> bool:
        """Whether it would not be in quarantine any more."""
        return self.outcome in ("row", "control_record", "late_duplicate")


def entries(store: SqliteStore, selection: Selection) -> Iterator[Entry]:
    """Records in quarantine, by tenant and position."""
    columns = "tenant_id, position, received_at, reason, detail, length(body)"
    return (Entry(*row) for page in _pages(store, columns, selection) for row in page)


def count(store: SqliteStore, selection: Selection) -> int:
    """How many records in quarantine are meant."""
    where, values = _where(selection)
    with store_errors():
        [found] = store.execute(f"SELECT count(*) FROM quarantine WHERE {where}", values).fetchone()
    return int(found)


def find(store: SqliteStore, tenant: str, position: int) -> QuarantineRow | None:
    """One record in quarantine, or None."""
    columns = ", ".join(QuarantineRow.__struct_fields__)
    return next((QuarantineRow(*row) for [row] in _pages(store, columns, Selection(tenant, [position]))), None)


def _pages(store: SqliteStore, columns: str, selection: Selection) -> Iterator[list[tuple[Any, ...]]]:
    """Rows in pages, each read whole: whatever happens between two, no snapshot is kept open. Columns begin with the key."""
    where, values = _where(selection)
    place: tuple[Any, ...] = ("", 0)
    statement = (
        f"SELECT {columns} FROM quarantine WHERE (tenant_id, position) > (?, ?) AND {where} "
        f"ORDER BY tenant_id, position LIMIT {PAGE_ROWS}"
    )
    while True:
        with store_errors():
            page = store.execute(statement, [*place, *values]).fetchall()
        if not page:
            return
        yield page
        place = page[-1][:2]


def _where(selection: Selection) -> tuple[str, list[Any]]:
    conditions, values = ["1"], list[Any]()
    if selection.tenant is not None:
        conditions.append("tenant_id = ?")
        values.append(selection.tenant)
    if selection.positions:
        conditions.append("position IN (SELECT value FROM json_each(?))")
        values.append(msgspec.json.encode(selection.positions).decode())
    if selection.reason is not None:
        conditions.append("reason = ?")
        values.append(selection.reason)
    if selection.through is not None:
        conditions.append("position <= ?")
        values.append(selection.through)
    return " AND ".join(conditions), values


# -- tried again -------------------------------------------------------------------------------------------------------


async def forecasts(log: Log, store: SqliteStore, selection: Selection) -> AsyncIterator[Forecast]:
    """What each record would become now: that of the log where there is one, for a rebuild reads it, or else its stored bytes.
    What comes before a record in the log may become a row, too, so only the rebuild says for sure. Raises LogUnavailable."""
    columns = ", ".join(QuarantineRow.__struct_fields__)
    for page in _pages(store, columns, selection):
        rows = [QuarantineRow(*row) for row in page]
        found = await log.find_each([(row.tenant_id, row.position) for row in rows])
        for row, record in zip(rows, found, strict=True):
            stored = Record(row.position, row.received_at_us, 1, row.body) if row.reason != "lost" else None
            with store_errors():
                yield Forecast(row.tenant_id, row.position, *_outcome(store.tables(), row.tenant_id, record or stored))


def _outcome(tables: TableSet, tenant: str, record: Record | None) -> tuple[str, str]:
    """What a record would become beside the rows that there are, and what there is to say of it."""
    if record is None:
        return "lost", "the record is gone from the log"
    try:
        if record.version == control.VERSION:
            return "control_record", str(control.parse(record))
        if record.version == DEAD_LETTER_VERSION:
            found = dead_letter.parse(record)
            return found.reason, found.detail
        row = row_of(tenant, record)
    except (Rejected, UnicodeError) as error:
        return "invalid", str(error)
    first = tables.find_named(row)
    if first is None or first[0] > record.position:
        return "row", f"{row.event_type} of session {row.session_id} at {row.timestamp}"
    same = first[1:] == content_of(row)
    return "late_duplicate" if same else "conflict", f"the event of that name is at position {first[0]}"


def became(store: SqliteStore, tenant: str, positions: Sequence[int]) -> dict[str, int]:
    """What is at some positions now: how many are rows, in quarantine, or neither."""
    found = {"row": 0, "quarantined": 0}
    for begin in range(0, len(positions), PAGE_ROWS):
        some = msgspec.json.encode(list(positions[begin : begin + PAGE_ROWS])).decode()
        for name, table in (("row", "events"), ("quarantined", "quarantine")):
            statement = f"SELECT count(*) FROM {table} WHERE tenant_id = ? AND position IN (SELECT value FROM json_each(?))"
            with store_errors():
                found[name] += store.execute(statement, (tenant, some)).fetchone()[0]
    return found | {"neither": len(positions) - sum(found.values())}


# -- dropped -----------------------------------------------------------------------------------------------------------


async def level(log: Log, store: SqliteStore, tenant: str, *, seconds: float) -> bool:
    """Until the tables have all that a tenant's log has now, a drop that somebody began included; False when that takes longer.
    Raises LogTruncated, LogDiffers, DeletedTenantHasLog, Gap."""
    checkpoint = store.tables().checkpoint(tenant)
    summaries = [one for one in await log.summaries([keys_of(tenant).partition]) if one.tenant == tenant]
    [summary] = summaries or [LogSummary(tenant, 0, 0)]
    if checkpoint is NO_CHECKPOINT and summary.last and store.tables().is_erased(tenant):
        raise DeletedTenantHasLog(tenant)
    for wrong in (await disagreements(log, [summary], {tenant: checkpoint})).values():
        raise wrong
    return await reach(log, store, tenant, summary.last, seconds=seconds)


async def behind(log: Log, store: SqliteStore) -> list[str]:
    """The tenants whose tables have not all that their logs have. Raises LogUnavailable."""
    checkpoints = store.tables().checkpoints()
    return [one.tenant for one in await log.summaries() if one.last > checkpoints.get(one.tenant, NO_CHECKPOINT).position]


async def reach(log: Log, store: SqliteStore, tenant: str, position: int, *, seconds: float) -> bool:
    """Until a tenant's tables are at a position: brought there by the projectors that run, or by this process where none does.
    Both at once is none too many: what does not begin behind the checkpoint is not written. False when it takes longer."""
    deadline = time.monotonic() + seconds
    dedup_keys, patient_until = -1, 0.0
    while (at := store.tables().checkpoint(tenant).position) < position:
        now = time.monotonic()
        if now > deadline:
            return False
        if at != dedup_keys:
            dedup_keys, patient_until = at, now + WAIT_SECONDS
        if now < patient_until:
            await asyncio.sleep(LOOK_SECONDS)
            continue
        async for batch in read(log, [Span(tenant, at, position)], accept_loss=False):
            if not store.apply([batch])[0] or time.monotonic() > deadline:
                break
    return True


async def drop(log: Log, store: SqliteStore, selection: Selection) -> tuple[int, int]:
    """Append the notes that drop what is meant of one tenant; how many records they name, and the last note's position, 0 when
    there was nothing to drop. Raises LogMissing, TenantDeleted, LogFull, LogUnavailable."""
    assert selection.tenant is not None
    store.check_version("")
    dropped = last = 0
    for page in _pages(store, "tenant_id, position", selection):
        last = await control.append(log.connection, selection.tenant, control.Drop([position for _, position in page]))
        dropped += len(page)
        failpoint("between_note_and_apply")
    return dropped, last
