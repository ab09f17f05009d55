"""What rows add to sessions, before the tables are read. Pure.

Rows in memory and rows that another process staged in a file are written the same way, because both come with this.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from projector.projection.rows import EventRow, SessionRow
from projector.projection.session_rows import by_session, fold_session
from projector.projection.sessionization import NOTHING_SESSIONLESS, Sessionless, sessionless_of


class Additions(msgspec.Struct, frozen=True):
    """What rows add to sessions that they name, and to derived sessions.

    It is as if no session had begun before these rows, so each session's `first_position` is that of its first row here.
    """

    sessions: list[SessionRow]
    sessionless: Sessionless = NOTHING_SESSIONLESS


def additions_of(rows: Sequence[EventRow]) -> Additions:
    """What rows add to sessions. The rows are in order of position."""
    sessions = [fold_session(events, events[0].position) for session_id, events in by_session(rows).items() if session_id]
    return Additions(sessions, sessionless_of(rows))


def values_of(rows: Sequence[EventRow], additions: Additions, moved: Mapping[int, int]) -> list[tuple[Any, ...]]:
    """The values of `events`, row by row.

    The last value is the first position of the row's session, or 0 for a row in no session.

    `moved` gives the first position that a session has in the tables, by the first position that it has here.
    """
    first = {session.session_id: moved.get(session.first_position, session.first_position) for session in additions.sessions}
    if sum([session.event_count for session in additions.sessions]) == len(rows):
        return [(*msgspec.structs.astuple(row), first[row.session_id]) for row in rows]
    return [
        (*msgspec.structs.astuple(row), first[row.session_id] if row.session_id else moved.get(row.position, 0)) for row in rows
    ]


def at_positions(sessions: Sequence[SessionRow], moved: Mapping[int, int]) -> list[SessionRow]:
    """Sessions at the first positions that they have in the tables.

    They come in order of these positions.
    """
    moved_sessions = [
        msgspec.structs.replace(session, first_position=moved[session.first_position])
        if session.first_position in moved
        else session
        for session in sessions
    ]
    return sorted(moved_sessions, key=_first_position)


def _first_position(session: SessionRow) -> int:
    return session.first_position
