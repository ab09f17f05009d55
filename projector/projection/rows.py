"""Rows of the tables, and the batches in which they come."""

import msgspec

from streams import control


class EventRow(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A row of `events`, all but its session's first position.

    `identity` is the user or visitor of an event without a session. It is empty for an event with a session, and for an event
    that names neither: such an event is in no session.
    """

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
    """A row of `event_sessions`, or what some events add to a session.

    First and last are by event time, then position; in a derived session content decides instead of position. The ids are the
    smallest that its events name, or empty.
    """

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


class KnownEvent(msgspec.Struct, frozen=True):
    """An event in the tables that has the identity of a row.

    `content` is what `content_of` gives.
    """

    position: int
    content: tuple[str, str, str, str]


class QuarantineRow(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A record that could not become a row.

    `reason` is one of a few words, `detail` says in a sentence what is wrong, `body` has the record's bytes.
    """

    tenant_id: str
    position: int
    received_at_us: int
    reason: str
    detail: str
    body: bytes


class PlacedControl(msgspec.Struct, frozen=True, gc=False):
    """A control record that changes tables, at its position."""

    position: int
    control_record: control.Drop | control.Erase


class Batch(msgspec.Struct, frozen=True):
    """The records of one tenant from `after` + 1 to `through`.

    `digest` is that of the last record. `erased` are positions of records that were erased from the log. `named` are quarantined
    records that have a name: (position, event_hash, hash_parts).
    """

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
        """Whether a control record erases records."""
        return any(isinstance(placed.control_record, control.Erase) for placed in self.control_records)


class Checkpoint(msgspec.Struct, frozen=True):
    """A tenant's last position in the tables, and its record's digest.

    The counts are of records up to there that are in no table: late duplicates; records that were dropped from quarantine, and
    control records; erased records.
    """

    position: int
    digest: str
    late_duplicates: int
    dropped: int = 0
    erased: int = 0


NO_CHECKPOINT = Checkpoint(0, "", 0)


class Counts(msgspec.Struct):
    """How many records of a tenant are in no table, by reason."""

    late_duplicates: int = 0
    dropped: int = 0
    erased: int = 0
