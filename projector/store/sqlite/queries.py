"""The queries that serve readers. Each is one snapshot of the live tables, and served by an index."""

from typing import Any

import msgspec

from projector.projection.project import content_of, row_of
from projector.store.sqlite.schema import live_generation
from projector.store.sqlite.store import SqliteStore
from streams import Record

Place = tuple[int, int]  # event time in microseconds, position: where the page before ended

EVENT_COLUMNS = (
    "position, event_hash, event_id, session_id, iif(session_id <> '', session_id, (SELECT s.session_id FROM event_sessions AS s "
    "WHERE s.tenant_id = events.tenant_id AND s.first_position = events.session_position)) AS session, "
    "event_type, timestamp, timestamp_us, timestamp_utc, received_at, properties"
)
SESSION_COLUMNS = (
    "session_id, user_id, anonymous_id, started_at, last_event_at, last_event_at_us, event_count, first_event_type, "
    "last_event_type, first_position"
)

# a session that was sent goes before a derived one of that name
_NAMED = "SELECT {} FROM event_sessions WHERE tenant_id = ? AND session_id = ? ORDER BY derived * first_position LIMIT 1"


class Filters(msgspec.Struct, frozen=True):
    """What readers may ask for. `since_us` is included, `until_us` is not; microseconds of event time."""

    session_id: str | None = None
    user_id: str | None = None
    event_type: str | None = None
    since_us: int | None = None
    until_us: int | None = None


def events(store: SqliteStore, tenant: str, filters: Filters, place: Place | None, limit: int) -> list[dict[str, Any]]:
    """Events, newest first by event time, then position, behind a place."""
    with store.reading() as connection:
        query = events_query(tenant, filters, place, limit, generation=live_generation(connection))
        return _event_rows(connection, *query)


def sessions(store: SqliteStore, tenant: str, filters: Filters, place: Place | None, limit: int) -> list[dict[str, Any]]:
    """Sessions, the one with the newest event first. `event_type`: sessions that hold such an event."""
    with store.reading() as connection:
        query = sessions_query(tenant, filters, place, limit, generation=live_generation(connection))
        return _rows(connection, *query)


def session(
    store: SqliteStore, tenant: str, filters: Filters, place: Place | None, limit: int
) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """One session and its events, from one snapshot."""
    with store.reading() as connection:
        generation = live_generation(connection)
        only = Filters(session_id=filters.session_id)
        found = _rows(connection, *sessions_query(tenant, only, None, 1, generation=generation))
        if not found:
            return None, []
        query = events_query(tenant, filters, place, limit, generation=generation)
        return found[0], _event_rows(connection, *query)


def receipt(store: SqliteStore, tenant: str, position: int) -> dict[str, Any]:
    """What the tables know of a position: projected, quarantined, dropped from there, erased, queued when they are not there
    yet, or else late_duplicate, which a note seems to be, too."""
    with store.reading() as connection:
        found = connection.execute(
            "SELECT event_hash FROM events WHERE tenant_id = ? AND position = ?", (tenant, position)
        ).fetchone()
        if found:
            return {"status": "projected", "event_hash": found[0], "position": position}
        found = connection.execute(
            "SELECT reason, detail FROM quarantine WHERE tenant_id = ? AND position = ?", (tenant, position)
        ).fetchone()
        if found:
            reason = {"reason": found[0], "detail": found[1]}
            return {"status": "quarantined", "event_hash": None, "position": position} | reason
        tables = store.tables_over(connection)
        applied = tables.checkpoint(tenant).position >= position
        status = tables.tombstones.reason(tenant, position) or ("late_duplicate" if applied else "queued")
        return {"status": status, "event_hash": None, "position": position}


def first_position(store: SqliteStore, tenant: str, record: Record) -> int | None:
    """The position of the event that a record is a late duplicate of; None when it is none."""
    row = row_of(tenant, record)
    with store.reading() as connection:
        found = store.tables_over(connection).find_named(row)
        return found[0] if found and found[1:] == content_of(row) and found[0] < record.position else None


def checkpoint(store: SqliteStore, tenant: str) -> int:
    """A tenant's checkpoint."""
    with store.reading() as connection:
        return store.tables_over(connection).checkpoint(tenant).position


def events_query(tenant: str, filters: Filters, place: Place | None, limit: int, *, generation: int) -> tuple[str, list[Any]]:
    """The statement for a page of events, and its values.

    It names its index: whatever statistics somebody made, a session's page never walks through its tenant's events.
    """
    index, where, values = "events_by_time", ["tenant_id = ?"], [tenant]
    if filters.event_type is not None:
        index = "events_by_type"
        where.append("event_type = ?")
        values.append(filters.event_type)
    if filters.session_id is not None:
        index = "events_by_session"
        where.append(f"session_position = ({_NAMED.format('first_position')})")
        values += [tenant, filters.session_id]
    start = f"SELECT {EVENT_COLUMNS} FROM events INDEXED BY {index}_g{generation}"
    return _paged(start, where, values, "timestamp_us", "position", filters, place, limit)


def sessions_query(tenant: str, filters: Filters, place: Place | None, limit: int, *, generation: int) -> tuple[str, list[Any]]:
    """The statement for a page of sessions, and its values."""
    index, where, values = "event_sessions_by_time", ["tenant_id = ?"], [tenant]
    if filters.user_id is not None:
        index = "event_sessions_by_user"
        where.append("user_id = ?")
        values.append(filters.user_id)
    if filters.session_id is not None:
        index = "event_sessions_by_name"
        where.append(f"session_id = ? AND derived * first_position = ({_NAMED.format('derived * first_position')})")
        values += [filters.session_id, tenant, filters.session_id]
    if filters.event_type is not None:
        where.append(
            f"EXISTS (SELECT 1 FROM events AS e INDEXED BY events_by_session_g{generation} "
            "WHERE e.tenant_id = event_sessions.tenant_id "
            "AND e.session_position = event_sessions.first_position AND e.event_type = ?)"
        )
        values.append(filters.event_type)
    start = f"SELECT {SESSION_COLUMNS} FROM event_sessions INDEXED BY {index}_g{generation}"
    return _paged(start, where, values, "last_event_at_us", "first_position", filters, place, limit)


def _paged(
    start: str, where: list[str], values: list[Any], time: str, position: str, filters: Filters, place: Place | None, limit: int
) -> tuple[str, list[Any]]:
    if filters.since_us is not None:
        where.append(f"{time} >= ?")
        values.append(filters.since_us)
    if filters.until_us is not None:
        where.append(f"{time} < ?")
        values.append(filters.until_us)
    if place is not None:
        where.append(f"({time}, {position}) < (?, ?)")
        values += place
    order = f"ORDER BY {time} DESC, {position} DESC LIMIT ?"
    return f"{start} WHERE {' AND '.join(where)} {order}", [*values, limit]


def _event_rows(connection: Any, statement: str, values: list[Any]) -> list[dict[str, Any]]:
    rows = _rows(connection, statement, values)
    for row in rows:
        row["properties"] = msgspec.Raw(row["properties"])
    return rows


def _rows(connection: Any, statement: str, values: list[Any]) -> list[dict[str, Any]]:
    cursor = connection.execute(statement, values)
    columns = [column[0] for column in cursor.description]
    return [dict(zip(columns, row, strict=True)) for row in cursor]
