"""Sessions made again after rows were deleted, from the rows that are left. Callers hold the transaction."""

from collections.abc import Sequence
from typing import Any

import msgspec

from projector.projection import EventRow
from projector.projection.sessions import fold_session
from projector.store.sqlite.sessions import SESSION, SESSION_VALUES, Actors, Deleted
from projector.store.sqlite.staging import COLUMNS


def refold(connection: Any, suffix: str, tenant: str, deleted: Sequence[Deleted]) -> None:
    """Make the sessions again from which rows of `events` were deleted, in the set under a suffix: those that were sent, and
    derived ones, which may fall apart. Each row is given with the first position of the session in which it was."""
    sent = {session_position for row, session_position in deleted if row.session_id}
    for first_position, rows in _left(connection, suffix, tenant, sent).items():
        where = f"FROM event_sessions{suffix} WHERE tenant_id = ? AND first_position = ?"
        connection.execute(f"DELETE {where}", (tenant, first_position))
        if rows:
            _write(connection, suffix, tenant, rows)
    Actors(connection, suffix, tenant).refold(deleted)


def _write(connection: Any, suffix: str, tenant: str, rows: Sequence[EventRow]) -> None:
    """The session that rows make, in order of position."""
    first = rows[0].position
    connection.execute(
        f"INSERT INTO event_sessions{suffix} ({SESSION}) VALUES ({SESSION_VALUES})",
        msgspec.structs.astuple(fold_session(rows, first)),
    )
    connection.executemany(
        f"UPDATE events{suffix} SET session_position = ?1 WHERE tenant_id = ?2 AND position = ?3 AND session_position <> ?1",
        [(first, tenant, row.position) for row in rows],
    )


def _left(connection: Any, suffix: str, tenant: str, sessions: set[int]) -> dict[int, list[EventRow]]:
    """The rows that are left of sessions, by these and in order of position."""
    found: dict[int, list[EventRow]] = {first_position: [] for first_position in sessions}
    if not sessions:
        return found
    statement = (
        f"SELECT session_position, {COLUMNS} FROM events{suffix} WHERE tenant_id = ? "
        "AND session_position IN (SELECT value FROM json_each(?)) ORDER BY position"
    )
    wanted = msgspec.json.encode(sorted(sessions)).decode()
    for session_position, *row in connection.execute(statement, (tenant, wanted)):
        found[session_position].append(EventRow(*row))
    return found
