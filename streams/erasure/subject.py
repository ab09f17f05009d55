"""Whom to forget: which records of a log are about somebody, and which names go with them. Pure; the log is read elsewhere."""

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec

from streams import control, dead_letter
from streams.event import DEAD_LETTER_VERSION, EVENT_VERSION, Event, Record, event_identity, parse_body
from streams.validation import Rejected, decode_json

OWN_MEMBERS = ("session_id", "event_type", "event_id")
Name = tuple[str, str]  # event_hash and split


class Subject(msgspec.Struct, frozen=True):
    """Events whose `member` has a value: one of an event's own, or one of its properties. A value is a text, and means the
    number, true, false or null that it is in JSON, too."""

    member: str
    value: str

    def digest(self, salt: str) -> str:
        """What stands for it where it must not be named."""
        return hashlib.sha256(f"{salt}\0{self.member}\0{self.value}".encode()).hexdigest()

    def is_in(self, record: Record, event: Event | None) -> bool:
        """Whether a record, with the event that it is, is about it. What is no event is, if any object in its JSON has the
        member with the value; notes never are."""
        if event is not None and self.member in OWN_MEMBERS:
            return bool(getattr(event, self.member) == self.value)
        if event is None and _is_note(record):
            return False
        try:
            found = decode_json(event.properties if event else _bytes_of(record))
        except Rejected:
            return False
        return any(self.member in one and self._means(one[self.member]) for one in ([found] if event else _objects(found)))

    def _means(self, found: Any) -> bool:
        if isinstance(found, str):
            return found == self.value
        try:
            wanted = decode_json(self.value.encode())
        except Rejected:
            return False
        return wanted == found and isinstance(wanted, bool) is isinstance(found, bool) and not isinstance(found, dict | list)


def event_in(record: Record) -> Event | None:
    """The event that a record is, None when it is none."""
    if record.version != EVENT_VERSION:
        return None
    try:
        return parse_body(record.body)
    except (Rejected, UnicodeError):
        return None


def identity_in(tenant: str, record: Record, event: Event | None) -> Name | None:
    """The name of a record, with the event that it is: that of the event, or of what was set aside; None where it has none."""
    try:
        if event is None and record.version == DEAD_LETTER_VERSION:
            event = dead_letter.parse_event(record)
        return event_identity(tenant, event) if event else None
    except (Rejected, UnicodeError):
        return None


def _bytes_of(record: Record) -> bytes:
    """What somebody sent, if a record is no event."""
    try:
        return dead_letter.parse(record).raw if record.version == DEAD_LETTER_VERSION else record.body
    except Rejected:
        return record.body


def _is_note(record: Record) -> bool:
    try:
        return record.version == control.VERSION and bool(control.parse(record))
    except Rejected:
        return False


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a JSON value."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


class Search:
    """What is to be done about a subject, found by reading a log from its start twice: first `look`, then `look_again`.

    An event's name is forgotten with the first record that has it. Whatever else came by that name, a late duplicate or a
    conflict, goes with it: it is no row, and would be one in tables that are made from a log without the first. A record about
    the subject whose name is somebody else's event goes alone.
    """

    def __init__(self, tenant: str, subject: Subject) -> None:
        self._tenant = tenant
        self._subject = subject
        self._matched: dict[int, Name | None] = {}
        self._names: set[Name] = set()
        self._first: dict[Name, int] = {}
        self._noted: set[int] = set()
        self.salt = ""  # of the notes that are there
        self.suppressed: dict[str, int] = {}  # salted names in these notes, each with the first position
        self.to_erase: dict[int, str] = {}  # positions of records that are there, each with the salted name that goes with it
        self.dedup_keys: dict[
            str, tuple[int, Name]
        ] = {}  # salted names that are forgotten, each with its first position and name
        self.sample: Record | None = None  # the first record that is meant

    def look(self, record: Record) -> None:
        """Note what is about the subject, and what notes say of former ones."""
        event = event_in(record)
        if self._subject.is_in(record, event):
            name = identity_in(self._tenant, record, event)
            self._matched[record.position] = name
            self.sample = self.sample or record
            if name:
                self._names.add(name)
        elif record.version == control.VERSION:
            self._look_at_note(record)

    def _look_at_note(self, record: Record) -> None:
        try:
            control_record = control.parse(record)
        except Rejected:
            return
        if isinstance(control_record, control.Erase):
            self.salt = control_record.salt
            self._noted.update(control_record.positions)
            self.suppressed |= names_in(control_record)

    def look_again(self, record: Record) -> None:
        """Decide about a record, when all that is about the subject is known and `salt` is that of the tenant."""
        if control.is_erased(record):
            return
        name = identity_in(self._tenant, record, event_in(record))
        is_meant = record.position in self._matched or record.position in self._noted
        if name is None:
            if is_meant:
                self.to_erase[record.position] = ""
            return
        salted = control.salted_name(self.salt, *name)
        first = self._first.setdefault(name, record.position) if name in self._names else None
        goes = salted in self.suppressed or salted in self.dedup_keys or first in self._matched
        if goes and salted not in self.dedup_keys:
            self.dedup_keys[salted] = (self.suppressed.get(salted, record.position), name)
        if goes or is_meant:
            self.to_erase[record.position] = salted if goes and record.position == self.dedup_keys[salted][0] else ""

    @property
    def to_note(self) -> list[int]:
        """Positions to erase that no note names yet, in order."""
        return sorted(self.to_erase.keys() - self._noted)

    @property
    def was_noted(self) -> bool:
        """Whether somebody was forgotten before: a run that was killed may have left something."""
        return bool(self._noted)


def names_in(control_record: control.Erase) -> dict[str, int]:
    """The names that a note keeps out, salted, each with its event's position."""
    return {name: position for name, position in zip(control_record.names, control_record.positions, strict=True) if name}
