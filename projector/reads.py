"""The queries that serve readers. Each is one snapshot of the live tables, and served by an index."""

from typing import Any

import msgspec

from projector.projection import EventRow
from projector.sqlite import SqliteStore
from streams import Event

Place = tuple[int, int]  # event time in microseconds, position: where the page before ended

EVENT_COLUMNS = (
    "position, event_hash, event_id, session_id, event_type, timestamp, timestamp_us, timestamp_utc, received_at, properties"
)
SESSION_COLUMNS = (
    "session_id, started_at, last_event_at, last_event_at_us, event_count, first_event_type, last_event_type, first_position"
)


class Filters(msgspec.Struct, frozen=True):
    """What readers may ask for. `since_us` is included, `until_us` is not; microseconds of event time."""

    session_id: str | None = None
    event_type: str | None = None
    since_us: int | None = None
    until_us: int | None = None


def events(store: SqliteStore, tenant: str, filters: Filters, place: Place | None, limit: int) -> list[dict[str, Any]]:
    """Events, newest first by event time, then position, behind a place."""
    with store.reading() as connection:
        return _event_rows(connection, *events_query(tenant, filters, place, limit))


def sessions(store: SqliteStore, tenant: str, filters: Filters, place: Place | None, limit: int) -> list[dict[str, Any]]:
    """Sessions, the one with the newest event first. `event_type`: sessions that hold such an event."""
    with store.reading() as connection:
        return _rows(connection, *sessions_query(tenant, filters, place, limit))


def session(
    store: SqliteStore, tenant: str, filters: Filters, place: Place | None, limit: int
) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """One session and its events, from one snapshot."""
    with store.reading() as connection:
        found = _rows(connection, *sessions_query(tenant, Filters(session_id=filters.session_id), None, 1))
        if not found:
            return None, []
        return found[0], _event_rows(connection, *events_query(tenant, filters, place, limit))


def receipt(store: SqliteStore, tenant: str, position: int) -> dict[str, Any]:
    """What the tables know of a position: projected, quarantined, late_duplicate, or queued when they are not there yet."""
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
        applied = store.tables_over(connection).checkpoint(tenant).position >= position
        return {"status": "late_duplicate" if applied else "queued", "event_hash": None, "position": position}


def first_position(store: SqliteStore, tenant: str, event: Event, event_hash: str, split: str) -> int | None:
    """The position of the first event of that name."""
    row = EventRow(
        tenant,
        0,
        event_hash,
        split,
        event.event_id,
        event.session_id,
        event.event_type,
        event.timestamp,
        event.timestamp_us,
        0,
        "",
    )
    with store.reading() as connection:
        found = store.tables_over(connection).find_named(row)
        return found[0] if found else None


def checkpoint(store: SqliteStore, tenant: str) -> int:
    """A tenant's checkpoint."""
    with store.reading() as connection:
        return store.tables_over(connection).checkpoint(tenant).position


def events_query(tenant: str, filters: Filters, place: Place | None, limit: int) -> tuple[str, list[Any]]:
    """The statement for a page of events, and its values."""
    where, values = ["tenant_id = ?"], [tenant]
    if filters.session_id is not None:
        # unlikely: few of a tenant's events are of one session or type, so their index, not that of time
        first = "SELECT first_position FROM event_sessions WHERE tenant_id = ? AND session_id = ?"
        where.append(f"unlikely(session_position = ({first}))")
        values += [tenant, filters.session_id]
    if filters.event_type is not None:
        # + keeps the planner on the session's index: a session is small, a type may be most of the tenant's events
        where.append("+event_type = ?" if filters.session_id is not None else "unlikely(event_type = ?)")
        values.append(filters.event_type)
    return _paged(f"SELECT {EVENT_COLUMNS} FROM events", where, values, "timestamp_us", "position", filters, place, limit)


def sessions_query(tenant: str, filters: Filters, place: Place | None, limit: int) -> tuple[str, list[Any]]:
    """The statement for a page of sessions, and its values."""
    where, values = ["tenant_id = ?"], [tenant]
    if filters.session_id is not None:
        where.append("session_id = ?")
        values.append(filters.session_id)
    if filters.event_type is not None:
        where.append(
            "EXISTS (SELECT 1 FROM events AS e WHERE e.tenant_id = event_sessions.tenant_id "
            "AND e.session_position = event_sessions.first_position AND +e.event_type = ?)"
        )
        values.append(filters.event_type)
    start = f"SELECT {SESSION_COLUMNS} FROM event_sessions"
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
