"""Data subjects: which records of a log are about a subject.

Also which identities are suppressed with them. Pure: the log is read elsewhere.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec

from streams import control, dead_letter
from streams.event import DEAD_LETTER_VERSION, EVENT_VERSION, Event, Record, event_identity, parse_body
from streams.validation import Rejected, decode_json

OWN_MEMBERS = ("session_id", "event_type", "event_id")
Identity = tuple[str, str]  # event_hash and hash_parts


class Subject(msgspec.Struct, frozen=True):
    """A data subject: the events whose `member` has a value.

    `member` is one of an event's own members, or one of its properties. `value` is a text, and also matches the number, true,
    false or null that it is in JSON.
    """

    member: str
    value: str

    def digest(self, salt: str) -> str:
        """What stands for the subject where it must not be named."""
        return hashlib.sha256(f"{salt}\0{self.member}\0{self.value}".encode()).hexdigest()

    def is_in(self, record: Record, event: Event | None) -> bool:
        """Whether a record is about the subject.

        `event` is the event that the record holds. A record that holds no event is about the subject if any object in its JSON
        has the member with the value. A control record never is.
        """
        if event is not None and self.member in OWN_MEMBERS:
            return bool(getattr(event, self.member) == self.value)
        if event is None and _is_control_record(record):
            return False
        try:
            value = decode_json(event.properties if event else _sent_bytes(record))
        except Rejected:
            return False
        objects = [value] if event else _objects_in(value)
        return any(self.member in members and self._matches(members[self.member]) for members in objects)

    def _matches(self, value: Any) -> bool:
        if isinstance(value, str):
            return value == self.value
        try:
            as_json = decode_json(self.value.encode())
        except Rejected:
            return False
        return as_json == value and isinstance(as_json, bool) is isinstance(value, bool) and not isinstance(value, dict | list)


def event_in(record: Record) -> Event | None:
    """The event that a record holds, or None."""
    if record.version != EVENT_VERSION:
        return None
    try:
        return parse_body(record.body)
    except (Rejected, UnicodeError):
        return None


def identity_in(tenant: str, record: Record, event: Event | None) -> Identity | None:
    """The identity of the event or dead letter in a record, or None."""
    try:
        if event is None and record.version == DEAD_LETTER_VERSION:
            event = dead_letter.parse_event(record)
        return event_identity(tenant, event) if event else None
    except (Rejected, UnicodeError):
        return None


def _sent_bytes(record: Record) -> bytes:
    """What the client sent, of a record that holds no event."""
    try:
        return dead_letter.parse(record).raw if record.version == DEAD_LETTER_VERSION else record.body
    except Rejected:
        return record.body


def _is_control_record(record: Record) -> bool:
    try:
        return record.version == control.VERSION and bool(control.parse(record))
    except Rejected:
        return False


def _objects_in(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a JSON value."""
    values = [value]
    while values:
        inner = values.pop()
        if isinstance(inner, dict):
            yield inner
            values.extend(inner.values())
        elif isinstance(inner, list):
            values.extend(inner)


class SubjectSearch:
    """What is to be erased for a subject.

    The log is read twice from its start: first `match`, then `decide`.

    An event's identity is suppressed with the first record that has it. Other records of that identity, a late duplicate or a
    conflict, are erased with it: they are no rows now, and would be rows in tables that are rebuilt without the first record. A
    record about the subject whose identity belongs to an event of another subject is erased alone.
    """

    def __init__(self, tenant: str, subject: Subject) -> None:
        self._tenant = tenant
        self._subject = subject
        self._matched: dict[int, Identity | None] = {}
        self._matched_identities: set[Identity] = set()
        self._first_of: dict[Identity, int] = {}
        self._named: set[int] = set()  # positions that control records of the log name
        self.salt = ""  # of the control records of the log
        self.suppressed: dict[str, int] = {}  # salted names in these control records, with the first position of each
        self.to_erase: dict[int, str] = {}  # positions of records that are there, with the salted name to suppress, or ""
        self.identities: dict[str, tuple[int, Identity]] = {}  # salted names to suppress, with the first position of each
        self.first_match: Record | None = None

    def match(self, record: Record) -> None:
        """Collect the records about the subject, and the control records."""
        event = event_in(record)
        if self._subject.is_in(record, event):
            identity = identity_in(self._tenant, record, event)
            self._matched[record.position] = identity
            self.first_match = self.first_match or record
            if identity:
                self._matched_identities.add(identity)
        elif record.version == control.VERSION:
            self._read_control_record(record)

    def _read_control_record(self, record: Record) -> None:
        try:
            control_record = control.parse(record)
        except Rejected:
            return
        if isinstance(control_record, control.Erase):
            self.salt = control_record.salt
            self._named.update(control_record.positions)
            self.suppressed |= names_in(control_record)

    def decide(self, record: Record) -> None:
        """Decide whether a record is erased.

        All records were matched before, and `salt` is the tenant's.
        """
        if control.is_erased(record):
            return
        identity = identity_in(self._tenant, record, event_in(record))
        is_meant = record.position in self._matched or record.position in self._named
        if identity is None:
            if is_meant:
                self.to_erase[record.position] = ""
            return
        name = control.salted_name(self.salt, *identity)
        first = self._first_of.setdefault(identity, record.position) if identity in self._matched_identities else None
        is_suppressed = name in self.suppressed or name in self.identities or first in self._matched
        if is_suppressed and name not in self.identities:
            self.identities[name] = (self.suppressed.get(name, record.position), identity)
        if is_suppressed or is_meant:
            self.to_erase[record.position] = name if is_suppressed and record.position == self.identities[name][0] else ""

    def suppressed_names(self) -> dict[str, int]:
        """All salted names to suppress, with the first position of each."""
        return self.suppressed | {name: position for name, (position, _) in self.identities.items()}

    @property
    def new_positions(self) -> list[int]:
        """The positions to erase that no control record names yet, in order."""
        return sorted(self.to_erase.keys() - self._named)

    @property
    def has_control_records(self) -> bool:
        """Whether records were erased before.

        A run that was killed may have left bytes of them.
        """
        return bool(self._named)


def names_in(control_record: control.Erase) -> dict[str, int]:
    """The salted names that a control record suppresses.

    Each has the position of its event.
    """
    return {name: position for name, position in zip(control_record.names, control_record.positions, strict=True) if name}
