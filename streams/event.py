"""What an event is, what it is called, and the record it becomes. The only definition of each; no I/O, no clock."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NoReturn

import msgspec

from streams.errors import PenstockError

NAME_LIMIT_BYTES = 256
DEPTH_LIMIT = 100
INTEGER_LIMIT = 2**63
CLOCK = b'{"clock_us":'
EVENT_VERSION, DEAD_LETTER_VERSION = 1, 3  # of records; 2 are notes
MICROSECOND = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_US = (datetime(1, 1, 1, tzinfo=UTC) - EPOCH) // MICROSECOND
LAST_US = (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC) - EPOCH) // MICROSECOND

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(order="sorted").encode
_decode_moment: Callable[[str], datetime] = msgspec.json.Decoder(Annotated[datetime, msgspec.Meta(tz=True)]).decode
_zeros_of_digits = bytes(ord("0") if chr(byte) in "0123456789" else ord(" ") for byte in range(256))
_long_digits = b"0" * 19


class Rejected(PenstockError):
    """An event cannot be accepted: the field, the reason, and the limit and value where a limit was passed."""

    def __init__(self, field: str, reason: str, *, limit: int | None = None, value: int | None = None) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field = field
        self.reason = reason
        self.limit = limit
        self.value = value


class Event(msgspec.Struct, frozen=True, gc=False):
    """What a client says happened. It has no place yet.

    `timestamp_us` is `timestamp` in microseconds since 1970-01-01T00:00:00Z, and `clock_us` with it, by which the client's clock
    is corrected. `properties` is a JSON object of every member that is not one of the event's own, compact, keys sorted; `body`
    is the whole event as the log stores it, in a record of that `version`.
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
    """The JSON of an event in the log: our serialisation of what was checked at the door. An event that came without a session
    has an empty one, and one that came without a time has an empty timestamp, and its time of arrival as `clock_us`."""

    session_id: str
    event_type: Annotated[str, msgspec.Meta(min_length=1)]
    timestamp: str
    properties: msgspec.Raw
    event_id: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    clock_us: int = 0


_decode_stored = msgspec.json.Decoder(StoredEvent).decode


class Record(msgspec.Struct, frozen=True, gc=False):
    """An event at its position in a tenant's log. `version` is 0 when the entry is none that Penstock wrote."""

    position: int
    received_at_us: int
    version: int
    body: bytes


def event_identity(tenant: str, event: Event) -> tuple[str, str]:
    """The identity of an event within its tenant: (event_hash, hash_parts).

    `event_hash` is the md5 of the strings joined without a separator, in hexadecimal. `hash_parts` says where they were joined:
    ("S1" + "2x") and ("S12" + "x") have one hash and are two events. It is "id" where the client sent an event_id, and
    "dead_letter" for a message that is no event.
    """
    if event.event_id is not None:
        joined, hash_parts = f"{tenant}{event.event_id}", "id" if event.version == EVENT_VERSION else "dead_letter"
    else:
        joined = f"{tenant}{event.session_id}{event.event_type}{event.timestamp}"
        hash_parts = f"{len(event.session_id)}.{len(event.event_type)}"
    return hashlib.md5(joined.encode(), usedforsecurity=False).hexdigest(), hash_parts


def digest_of(body: bytes) -> str:
    """Sixteen hexadecimal digits that tell one content from another under the same name."""
    return hashlib.blake2b(body, digest_size=8).hexdigest()


def content_digest(event: Event) -> str:
    """The digest of what the client sent: a resend has it, too, although its clock may be corrected by another difference."""
    if event.version != EVENT_VERSION and event.event_id:  # what was set aside is named by its bytes
        return digest_of(event.event_id.encode())
    if not event.clock_us:
        return digest_of(event.body)
    if event.body.startswith(CLOCK):  # which comes first where keys are sorted: cut off, it need not be parsed
        return digest_of(b"{" + event.body.partition(b",")[2])
    return digest_of(_encode(msgspec.structs.replace(_decode_stored(event.body), clock_us=0)))


def decode_json(raw: bytes) -> Any:
    """Any JSON value. Raises Rejected when it is none, or none that we can store."""
    try:
        return _decode(raw)
    except RecursionError:
        raise Rejected("", f"is nested deeper than {DEPTH_LIMIT} levels", limit=DEPTH_LIMIT) from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Rejected("", f"is not JSON that can be stored: {error}") from None


def parse_event(raw: bytes) -> Event:
    """An event from a client's JSON object. Raises Rejected; what it returns can be stored by every table."""
    return check_event(decode_json(raw), raw)


def check_event(members: Any, raw: bytes) -> Event:
    """An event from a client's JSON object and the bytes it was decoded from."""
    if type(members) is not dict:
        raise Rejected("", "must be a JSON object")
    rest = members.copy()
    stored = StoredEvent(
        session_id=_text(rest, "session_id", NAME_LIMIT_BYTES),
        event_type=_text(rest, "event_type", NAME_LIMIT_BYTES),
        timestamp=_text(rest, "timestamp", 64),
        event_id=_text(rest, "event_id", NAME_LIMIT_BYTES) if rest.get("event_id") is not None else rest.pop("event_id", None),
        properties=msgspec.Raw(_encode(rest)),
    )
    event = _event(stored, _encode(stored))
    if _needs_a_closer_look(rest, raw, event.body):
        _look_closer(raw)
    return event


def make_event(
    *, session_id: str, event_type: Any, timestamp: Any, event_id: Any, properties: dict[str, Any], clock_us: int = 0
) -> Event:
    """An event from the parts that a foreign format gives; only its session may be empty. `properties` were decoded from JSON.

    Raises Rejected. Only an event with an id has its clock corrected: the name of any other rests on its timestamp, and a resend,
    corrected by another difference, would be another event to the tables.
    """
    stored = StoredEvent(
        session_id=_checked("session_id", session_id, NAME_LIMIT_BYTES) if session_id else "",
        event_type=_checked("event_type", event_type, NAME_LIMIT_BYTES),
        timestamp=_checked("timestamp", timestamp, 64) if timestamp or event_id is None else "",
        event_id=None if event_id is None else _checked("event_id", event_id, NAME_LIMIT_BYTES),
        properties=msgspec.Raw(_encode(properties)),
        clock_us=0 if event_id is None else clock_us,
    )
    event = _event(stored, _encode(stored))
    if _may_hide(event.body):  # in which the properties are an inner object
        _look_closer(event.body)
    return event


def parse_body(body: bytes) -> Event:
    """An event from its JSON in the log. Raises Rejected when it is not what the door writes."""
    try:
        stored = _decode_stored(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected("", f"is not a stored event: {error}") from None
    event = _event(stored, body)
    if not event.properties.startswith(b"{"):
        raise Rejected("properties", "must be a JSON object")
    if event.clock_us and event.event_id is None:
        raise Rejected("clock_us", "corrects only the clock of an event with an id")
    return event


def _event(stored: StoredEvent, body: bytes) -> Event:
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


def _text(members: dict[str, Any], field: str, limit_bytes: int) -> str:
    """Take a name of the event's own out of its members."""
    return _checked(field, members.pop(field, None), limit_bytes)


def _checked(field: str, text: Any, limit_bytes: int) -> str:
    """A name of the event's own, if it is one."""
    if type(text) is str and 0 < len(text) <= limit_bytes and text.isascii():  # nearly all
        return text
    if type(text) is not str:
        raise Rejected(field, "is missing" if text is None else "must be a string")
    if not text:
        raise Rejected(field, "must not be empty")
    if len(text.encode()) > limit_bytes:
        raise Rejected(field, f"is longer than {limit_bytes} bytes", limit=limit_bytes, value=len(text.encode()))
    return text


def microseconds(timestamp: str) -> int:
    """RFC 3339 to microseconds since the epoch; digits past the microsecond are rounded."""
    try:
        # As JSON: msgspec.convert looks its type up at each call and takes five times as long.
        moment = _decode_moment(f'"{timestamp}"')
    except (msgspec.MsgspecError, UnicodeError):
        moment = None
    if moment is None or "\\" in timestamp:  # which JSON would take for an escape
        raise Rejected("timestamp", "must be an RFC 3339 date and time with an offset, e.g. 2026-01-01T10:00:00Z")
    moment_us = (moment - EPOCH) // MICROSECOND
    if not FIRST_US <= moment_us <= LAST_US:
        raise Rejected("timestamp", "must lie between the years 1 and 9999 in UTC")
    return moment_us


def _needs_a_closer_look(properties: dict[str, Any], raw: bytes, body: bytes) -> bool:
    """Whether the JSON may hold what some table cannot: cheap signs first, so that nearly all events skip the slow check.

    Only an escape can hide a NUL, and without escapes each key and string has two quotes in `raw` and in `body`, where one
    key is ours: any other count means that a key stood there twice.
    """
    if raw.count(b'"') != body.count(b'"') - 2 or _may_hide(raw):
        return True
    return any(map(_is_too_long, properties.values()))


def _may_hide(raw: bytes) -> bool:
    """Whether JSON may be too deep, or hold a NUL or, in an inner object, an integer past 64 bits."""
    nested = raw.count(b"[") + raw.count(b"{")
    return b"\\" in raw or nested > DEPTH_LIMIT or (nested > 1 and _has_long_digits(raw))


def _has_long_digits(raw: bytes) -> bool:
    """Whether so many digits stand in a row that they may be an integer past 64 bits. A regular expression takes ten times as
    long to find that there are none."""
    return _long_digits in raw.translate(_zeros_of_digits)


def _is_too_long(value: Any) -> bool:
    return type(value) is int and not -INTEGER_LIMIT <= value < INTEGER_LIMIT


def _look_closer(raw: bytes) -> None:
    """Refuse duplicate keys, NUL, integers past 64 bits and deep nesting."""
    if depth_of(raw) > DEPTH_LIMIT:
        raise Rejected("", f"is nested deeper than {DEPTH_LIMIT} levels", limit=DEPTH_LIMIT, value=depth_of(raw))
    waiting = [json.loads(raw, object_pairs_hook=_no_duplicate_keys, parse_constant=_no_constant)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.keys())
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, str) and "\0" in value:
            raise Rejected("", "holds a NUL character, which tables cannot store")
        elif type(value) is int and not -INTEGER_LIMIT <= value < INTEGER_LIMIT:
            raise Rejected("", "holds an integer that does not fit 64 bits; send it as a string")


def _no_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise Rejected(twice, "stands twice in one object")
    return members


def _no_constant(name: str) -> NoReturn:
    raise Rejected("", f"holds {name}, which is not JSON")


def depth_of(raw: bytes) -> int:
    """The deepest nesting of a valid JSON text."""
    deepest = depth = 0
    for token in re.findall(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', raw):
        if token in (b"[", b"{"):
            depth += 1
            deepest = max(deepest, depth)
        elif token in (b"]", b"}"):
            depth -= 1
    return deepest
