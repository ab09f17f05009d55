"""The queries that serve readers.

Each reads one snapshot of the live tables, by an index.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from projector.projection import EventRow, KnownEvent
from projector.store.sqlite.connection import SqliteFile
from projector.store.sqlite.event_rows import EventRows
from projector.store.sqlite.schema import LIVE, live_generation
from projector.store.sqlite.table_reader import TableReader
from projector.store.structs import Filters, PageKey, TableCounts

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


class SqliteQueries:
    """What the query endpoints and `status` read."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def events(self, tenant: str, filters: Filters, page_key: PageKey | None, limit: int) -> list[dict[str, Any]]:
        """Events after a page key, newest first by event time, then position."""
        with self._file.reading() as connection:
            query = events_query(tenant, filters, page_key, limit, generation=live_generation(connection))
            return _event_rows(connection, *query)

    def sessions(self, tenant: str, filters: Filters, page_key: PageKey | None, limit: int) -> list[dict[str, Any]]:
        """Sessions, newest last event first.

        With `event_type`, those that have such an event.
        """
        with self._file.reading() as connection:
            query = sessions_query(tenant, filters, page_key, limit, generation=live_generation(connection))
            return _rows(connection, *query)

    def session(
        self, tenant: str, filters: Filters, page_key: PageKey | None, limit: int
    ) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """One session, or None, and a page of its events."""
        with self._file.reading() as connection:
            generation = live_generation(connection)
            only = Filters(session_id=filters.session_id)
            sessions = _rows(connection, *sessions_query(tenant, only, None, 1, generation=generation))
            if not sessions:
                return None, []
            query = events_query(tenant, filters, page_key, limit, generation=generation)
            return sessions[0], _event_rows(connection, *query)

    def receipt(self, tenant: str, position: int) -> dict[str, Any]:
        """What the tables know of a position.

        Status is projected, quarantined, dropped, erased, queued when the checkpoint is not there yet, or else late_duplicate, as
        which a control record appears, too.
        """
        with self._file.reading() as connection:
            event = connection.execute(
                "SELECT event_hash FROM events WHERE tenant_id = ? AND position = ?", (tenant, position)
            ).fetchone()
            if event:
                return {"status": "projected", "event_hash": event[0], "position": position}
            record = connection.execute(
                "SELECT reason, detail FROM quarantine WHERE tenant_id = ? AND position = ?", (tenant, position)
            ).fetchone()
            if record:
                reason = {"reason": record[0], "detail": record[1]}
                return {"status": "quarantined", "event_hash": None, "position": position} | reason
            tables = TableReader(connection)
            applied = tables.checkpoint(tenant).position >= position
            status = tables.removal_reason(tenant, position) or ("late_duplicate" if applied else "queued")
            return {"status": status, "event_hash": None, "position": position}

    def known_event(self, row: EventRow) -> KnownEvent | None:
        """The event in the tables that has the identity of a row, or None."""
        with self._file.reading() as connection:
            return EventRows(connection, LIVE).known_event(row)

    def counts(self, tenants: Iterable[str]) -> TableCounts:
        """Checkpoints and counts of every tenant, of one snapshot.

        Also says which of the given tenants were deleted.
        """
        with self._file.reading() as connection:
            tables = TableReader(connection)
            checkpoints = tables.checkpoints()
            quarantined = dict(connection.execute("SELECT tenant_id, count(*) FROM quarantine GROUP BY tenant_id").fetchall())
            deleted = [tenant for tenant in tenants if tenant not in checkpoints and tables.is_deleted(tenant)]
            return TableCounts(checkpoints, quarantined, deleted)

    def session_counts(self, tenants: Sequence[str] | None = None) -> dict[str, int]:
        """How many sessions there are, by tenant; of all tenants, or of some.

        Each session takes time.
        """
        counted = "SELECT tenant_id, count(*) FROM event_sessions"
        with self._file.reading() as connection:
            if tenants is None:
                return dict(connection.execute(f"{counted} GROUP BY tenant_id").fetchall())
            return dict(connection.execute(f"{counted} WHERE tenant_id = ?", (tenant,)).fetchone() for tenant in tenants)


def events_query(
    tenant: str, filters: Filters, page_key: PageKey | None, limit: int, *, generation: int
) -> tuple[str, list[Any]]:
    """The statement for a page of events, and its values.

    It names its index: whatever statistics ANALYZE made, the page of a session never walks through its tenant's events.
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
    return _paged(start, where, values, "timestamp_us", "position", filters, page_key, limit)


def sessions_query(
    tenant: str, filters: Filters, page_key: PageKey | None, limit: int, *, generation: int
) -> tuple[str, list[Any]]:
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
    return _paged(start, where, values, "last_event_at_us", "first_position", filters, page_key, limit)


def _paged(
    start: str,
    where: list[str],
    values: list[Any],
    time: str,
    position: str,
    filters: Filters,
    page_key: PageKey | None,
    limit: int,
) -> tuple[str, list[Any]]:
    if filters.since_us is not None:
        where.append(f"{time} >= ?")
        values.append(filters.since_us)
    if filters.until_us is not None:
        where.append(f"{time} < ?")
        values.append(filters.until_us)
    if page_key is not None:
        where.append(f"({time}, {position}) < (?, ?)")
        values += page_key
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
