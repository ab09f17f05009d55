"""The projection: records in, rows out. Pure: no I/O, no clock, so the same records always give the same rows.

Change what it gives for any record and PROJECTION_VERSION goes up by one: tables of another version are left alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from projector.projection.identities import named_in
from streams import (
    DEAD_LETTER_VERSION,
    EVENT_VERSION,
    Record,
    Rejected,
    StoredEvent,
    control,
    dead_letter,
    digest_of,
    event_identity,
    microseconds,
    parse_body,
)

PROJECTION_VERSION = 4  # 3 knows neither that somebody is forgotten, nor events without a session


class EventRow(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A row of `events`, all but its session's first position. `identity` is by whom an event is that came without a session;
    empty when it has one, or names nobody: it is in no session then."""

    tenant_id: str
    position: int
    event_hash: str
    hash_parts: str
    event_id: str | None
    session_id: str
    event_type: str
    timestamp: str
    timestamp_us: int
    received_at_us: int
    properties: str
    identity: str = ""


class SessionRow(msgspec.Struct, frozen=True, gc=False):
    """A row of `event_sessions`, or what some events add to one. First and last are by event time, then position, unless it is
    derived: the session of events that came without one. The ids are the smallest that its events name, or empty."""

    tenant_id: str
    first_position: int
    session_id: str
    started_at_us: int
    last_event_at_us: int
    event_count: int
    first_event_type: str
    last_event_type: str
    user_id: str = ""
    anonymous_id: str = ""
    derived: int = 0


class QuarantineRow(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A record that could not become a row: its bytes, a stable reason, and what was wrong in words."""

    tenant_id: str
    position: int
    received_at_us: int
    reason: str
    detail: str
    body: bytes


class PlacedControl(msgspec.Struct, frozen=True, gc=False):
    """A note at its position: one that says what is to be done."""

    position: int
    control_record: control.Drop | control.Erase


class Batch(msgspec.Struct, frozen=True):
    """The next records of one tenant as rows and notes: positions `after` + 1 to `through`, of which some were erased. `digest`
    names the last record. `named`: what is quarantined and has a name, (position, event_hash, hash_parts)."""

    tenant: str
    after: int
    through: int
    digest: str
    rows: list[EventRow]
    quarantined: list[QuarantineRow]
    control_records: list[PlacedControl] = []
    erased: list[int] = []
    named: list[tuple[int, str, str]] = []

    @property
    def erases(self) -> bool:
        """Whether a note says that somebody is forgotten."""
        return any(isinstance(placed.control_record, control.Erase) for placed in self.control_records)


def project(tenant: str, after: int, records: Sequence[Record], through: int) -> Batch:
    """The batch that the records from `after` + 1 to `through` make, in order; a position that is missing was lost."""
    rows: list[EventRow] = []
    quarantined: list[QuarantineRow] = []
    placed: list[PlacedControl] = []
    erased: list[int] = []
    named: list[tuple[int, str, str]] = []
    position = after
    for record in records:
        if record.position != position + 1:
            quarantined += _lost(tenant, position + 1, record.position - 1)
        position = record.position
        try:
            if record.version == control.VERSION:
                control_record = control.parse(record)
                if isinstance(control_record, control.Erased):
                    erased.append(position)
                else:
                    placed.append(PlacedControl(position, control_record))
            elif record.version == DEAD_LETTER_VERSION:
                found = dead_letter.parse(record)
                named.append((position, *event_identity(tenant, dead_letter.parse_event(record))))
                quarantined.append(QuarantineRow(tenant, position, record.received_at_us, found.reason, found.detail, found.raw))
            else:
                rows.append(row_of(tenant, record))
        except (Rejected, UnicodeError) as error:
            quarantined.append(QuarantineRow(tenant, position, record.received_at_us, "invalid", str(error), record.body))
    quarantined += _lost(tenant, position + 1, through)
    digest = digest_of(records[-1].body) if records and position == through else ""
    return Batch(tenant, after, through, digest, rows, quarantined, placed, erased, named)


def _lost(tenant: str, first: int, last: int) -> list[QuarantineRow]:
    detail = "the record is gone from the log"
    return [QuarantineRow(tenant, position, 0, "lost", detail, b"") for position in range(first, last + 1)]


def row_of(tenant: str, record: Record) -> EventRow:
    """The row of one record. Raises Rejected when it cannot become one."""
    if record.version != EVENT_VERSION:
        raise Rejected("version", f"is {record.version}; this projector reads events of version {EVENT_VERSION}")
    event = parse_body(record.body)
    event_hash, hash_parts = event_identity(tenant, event)
    properties = event.properties.decode()
    return EventRow(
        tenant,
        record.position,
        event_hash,
        hash_parts,
        event.event_id,
        event.session_id,
        event.event_type,
        event.timestamp,
        event.timestamp_us,
        record.received_at_us,
        properties,
        "" if event.session_id else named_in(properties).identity,
    )


def content_of(row: EventRow) -> tuple[str, str, str, str]:
    """What two events of one name are compared by."""
    return row.session_id, row.event_type, row.timestamp, row.properties


def refused(row: EventRow, reason: str, detail: str) -> QuarantineRow:
    """A row that no table takes, set aside as the record that it came from."""
    properties = msgspec.Raw(row.properties.encode())
    clock_us = row.timestamp_us - (microseconds(row.timestamp) if row.timestamp else 0)
    event = StoredEvent(row.session_id, row.event_type, row.timestamp, properties, row.event_id, clock_us)
    body = msgspec.json.encode(event, order="sorted")
    return QuarantineRow(row.tenant_id, row.position, row.received_at_us, reason, detail, body)


def by_session(rows: Iterable[EventRow]) -> dict[str, list[EventRow]]:
    """Rows by their session as it was sent, both in the order in which they come."""
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
        least([one.user_id for one in named]) if named else "",
        least([one.anonymous_id for one in named]) if named else "",
    )


def least(names: Iterable[str]) -> str:
    """The smallest name that is none empty, by the bytes of its UTF-8: the same whatever their order."""
    return min((name for name in names if name), default="")


_time = attrgetter("timestamp_us")


def with_sessions(
    rows: Sequence[EventRow],
    sessions: Mapping[str, Sequence[EventRow]],
    known: dict[str, int],
    placed: Mapping[int, int] | None = None,
) -> tuple[list[tuple[Any, ...]], list[SessionRow]]:
    """Rows as the values of `events`, and what they add to their sessions. `known`: first positions of those begun before.
    `placed`: of the sessions that were derived, by the position of the event; one that is not there is in none."""
    first = {session_id: events[0].position for session_id, events in sessions.items()} | known
    if "" in sessions:
        at = placed or {}
        values = [
            (*msgspec.structs.astuple(row), first[row.session_id] if row.session_id else at.get(row.position, 0)) for row in rows
        ]
    else:
        values = [(*msgspec.structs.astuple(row), first[row.session_id]) for row in rows]
    return values, [fold_session(events, first[session_id]) for session_id, events in sessions.items() if session_id]
