"""Sessions that were sent: what events add to the session that they name.

Pure.
"""

from collections.abc import Iterable, Sequence
from operator import attrgetter

from projector.projection.identities import named_in
from projector.projection.rows import EventRow, SessionRow


def by_session(rows: Iterable[EventRow]) -> dict[str, list[EventRow]]:
    """Rows by the session that they name, in their order."""
    sessions: dict[str, list[EventRow]] = {}
    for row in rows:
        session = sessions.get(row.session_id)
        if session is None:
            sessions[row.session_id] = [row]
        else:
            session.append(row)
    return sessions


def fold_session(events: Sequence[EventRow], first_position: int) -> SessionRow:
    """What rows of one session, in order of position, add to it."""
    # min keeps the first of equals and the reversed max the last: equal times go by position
    earliest = min(events, key=_time)
    latest = max(reversed(events), key=_time)
    named = [named_in(row.properties) for row in events if '_id"' in row.properties]
    return SessionRow(
        earliest.tenant_id,
        first_position,
        earliest.session_id,
        earliest.timestamp_us,
        latest.timestamp_us,
        len(events),
        earliest.event_type,
        latest.event_type,
        least([names.user_id for names in named]) if named else "",
        least([names.anonymous_id for names in named]) if named else "",
    )


def least(names: Iterable[str]) -> str:
    """The smallest name that is not empty, or an empty text.

    Names are compared by code point, which is also the order of their UTF-8 bytes.
    """
    return min((name for name in names if name), default="")


_time = attrgetter("timestamp_us")
