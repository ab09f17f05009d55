"""What an event is, its identity, and the record that it becomes.

The only definition of each. No I/O, no clock.
"""

import hashlib
from typing import Annotated, Any

import msgspec

from streams.validation import (
    FIRST_US,
    LAST_US,
    NAME_LIMIT_BYTES,
    TIMESTAMP_LIMIT_BYTES,
    Rejected,
    check_body,
    check_properties,
    check_text,
    decode_json,
    microseconds,
    pop_text,
)

EVENT_VERSION, DEAD_LETTER_VERSION = 1, 3  # of a record; 2 is a control record
CLOCK = b'{"clock_us":'

_encode = msgspec.json.Encoder(order="sorted").encode


class Event(msgspec.Struct, frozen=True, gc=False):
    """What a client says happened. It has no position yet.

    `timestamp_us` is `timestamp` in microseconds since 1970-01-01T00:00:00Z plus `clock_us`, the correction of the client's
    clock. `properties` is a JSON object of the client's other members, compact, keys sorted. `body` is the whole event as the
    log stores it, in a record of that `version`.
    """

    session_id: str
    event_type: str
    timestamp: str
    timestamp_us: int
    event_id: str | None
    properties: bytes
    body: bytes
    clock_us: int = 0
    version: int = EVENT_VERSION


class StoredEvent(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The JSON of an event in the log.

    An event that came without a session has an empty `session_id`. An event that came without a time has an empty `timestamp`,
    and its time of arrival as `clock_us`.
    """

    session_id: str
    event_type: Annotated[str, msgspec.Meta(min_length=1)]
    timestamp: str
    properties: msgspec.Raw
    event_id: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    clock_us: int = 0


_decode_stored = msgspec.json.Decoder(StoredEvent).decode


class Record(msgspec.Struct, frozen=True, gc=False):
    """An event at its position in a tenant's log.

    `version` says what `body` holds: 1 an event, 2 a control record, 3 a dead letter, 0 an entry that Penstock did not write.
    """

    position: int
    received_at_us: int
    version: int
    body: bytes


def event_identity(tenant: str, event: Event) -> tuple[str, str]:
    """The identity of an event within its tenant: (event_hash, hash_parts).

    `event_hash` is the md5 of the strings joined without a separator, in hexadecimal. `hash_parts` says where they were joined:
    ("S1" + "2x") and ("S12" + "x") have the same hash and are two events. It is "id" where the client sent an event_id, and
    "dead_letter" for a dead letter.
    """
    if event.event_id is not None:
        joined, hash_parts = f"{tenant}{event.event_id}", "id" if event.version == EVENT_VERSION else "dead_letter"
    else:
        joined = f"{tenant}{event.session_id}{event.event_type}{event.timestamp}"
        hash_parts = f"{len(event.session_id)}.{len(event.event_type)}"
    return hashlib.md5(joined.encode(), usedforsecurity=False).hexdigest(), hash_parts


def digest_of(body: bytes) -> str:
    """Sixteen hexadecimal digits that tell contents apart."""
    return hashlib.blake2b(body, digest_size=8).hexdigest()


def content_digest(event: Event) -> str:
    """The digest of what the client sent.

    A resend has the same digest, although its clock may be corrected by another difference.
    """
    if event.version != EVENT_VERSION and event.event_id:  # the id of a dead letter is made from its bytes
        return digest_of(event.event_id.encode())
    if not event.clock_us:
        return digest_of(event.body)
    if event.body.startswith(CLOCK):  # keys are sorted, so it comes first and can be cut off without parsing
        return digest_of(b"{" + event.body.partition(b",")[2])
    return digest_of(_encode(msgspec.structs.replace(_decode_stored(event.body), clock_us=0)))


def parse_event(raw: bytes) -> Event:
    """An event from a client's JSON object.

    Raises Rejected; every table can store what it returns.
    """
    return check_event(decode_json(raw), raw)


def check_event(members: Any, raw: bytes) -> Event:
    """An event from a client's JSON object and the bytes it was decoded from.

    Raises Rejected.
    """
    if type(members) is not dict:
        raise Rejected("", "must be a JSON object")
    properties = members.copy()
    session_id = pop_text(properties, "session_id", NAME_LIMIT_BYTES)
    event_type = pop_text(properties, "event_type", NAME_LIMIT_BYTES)
    timestamp = pop_text(properties, "timestamp", TIMESTAMP_LIMIT_BYTES)
    event_id = properties.pop("event_id", None)
    if event_id is not None:
        event_id = check_text("event_id", event_id, NAME_LIMIT_BYTES)
    stored = StoredEvent(session_id, event_type, timestamp, msgspec.Raw(_encode(properties)), event_id)
    event = _event_of(stored, _encode(stored))
    check_properties(properties, raw, event.body)
    return event


def make_event(
    *, session_id: str, event_type: Any, timestamp: Any, event_id: Any, properties: dict[str, Any], clock_us: int = 0
) -> Event:
    """An event from the parts that a foreign format gives. Raises Rejected.

    Only `session_id` may be empty. `properties` were decoded from JSON. The clock is corrected only where the event has an id:
    the identity of any other event rests on its timestamp, and a resend, corrected by another difference, would be another
    event to the tables.
    """
    stored = StoredEvent(
        session_id=check_text("session_id", session_id, NAME_LIMIT_BYTES) if session_id else "",
        event_type=check_text("event_type", event_type, NAME_LIMIT_BYTES),
        timestamp=check_text("timestamp", timestamp, TIMESTAMP_LIMIT_BYTES) if timestamp or event_id is None else "",
        event_id=None if event_id is None else check_text("event_id", event_id, NAME_LIMIT_BYTES),
        properties=msgspec.Raw(_encode(properties)),
        clock_us=0 if event_id is None else clock_us,
    )
    event = _event_of(stored, _encode(stored))
    check_body(event.body)
    return event


def parse_body(body: bytes) -> Event:
    """An event from its JSON in the log.

    Raises Rejected when Penstock did not write it.
    """
    try:
        stored = _decode_stored(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected("", f"is not a stored event: {error}") from None
    event = _event_of(stored, body)
    if not event.properties.startswith(b"{"):
        raise Rejected("properties", "must be a JSON object")
    if event.clock_us and event.event_id is None:
        raise Rejected("clock_us", "corrects only the clock of an event with an id")
    return event


def _event_of(stored: StoredEvent, body: bytes) -> Event:
    timestamp, clock_us = stored.timestamp, stored.clock_us
    timestamp_us = microseconds(timestamp) if timestamp or not clock_us else 0
    if clock_us:
        timestamp_us += clock_us
        if not FIRST_US <= timestamp_us <= LAST_US:
            raise Rejected("clock_us", "corrects the timestamp to none between the years 1 and 9999 in UTC")
    return Event(
        stored.session_id,
        stored.event_type,
        timestamp,
        timestamp_us,
        stored.event_id,
        bytes(stored.properties),
        body,
        clock_us,
    )
