"""What an event is, what it is called, and the record it becomes. The only definition of each; no I/O, no clock."""

import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NoReturn

import msgspec

NAME_LIMIT_BYTES = 256
DEPTH_LIMIT = 100
INTEGER_LIMIT = 2**63
MICROSECOND = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_US = (datetime(1, 1, 1, tzinfo=UTC) - EPOCH) // MICROSECOND
LAST_US = (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC) - EPOCH) // MICROSECOND
OWN_MEMBERS = ("session_id", "event_type", "timestamp", "event_id")

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(order="sorted").encode
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]
_long_digits = re.compile(rb"\d{19}").search


class Rejected(Exception):
    """An event cannot be accepted: the field, the reason, and the limit and value where a limit was passed."""

    def __init__(self, field: str, reason: str, *, limit: int | None = None, value: int | None = None) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field = field
        self.reason = reason
        self.limit = limit
        self.value = value


class Event(msgspec.Struct, frozen=True, gc=False):
    """What a client says happened. It has no place yet.

    `body` is the event as it is stored: our serialisation of what was checked, compact, keys sorted.
    `timestamp_us` is `timestamp` in microseconds since 1970-01-01T00:00:00Z.
    """

    session_id: str
    event_type: str
    timestamp: str
    timestamp_us: int
    event_id: str | None
    members: dict[str, Any]
    body: bytes

    @property
    def properties(self) -> bytes:
        """Every member that is not one of the event's own, as a JSON object."""
        return _encode({key: value for key, value in self.members.items() if key not in OWN_MEMBERS})


class Record(msgspec.Struct, frozen=True, gc=False):
    """An event at its position in a tenant's log. `version` is 0 when the entry is none that Penstock wrote."""

    position: int
    received_at_us: int
    version: int
    body: bytes


def name_of(tenant: str, event: Event) -> tuple[str, str]:
    """The event's name: (event_hash, split).

    `event_hash` is the md5 of the parts joined without a separator, in hexadecimal; `split` says where they were joined
    ("S1" + "2x" and "S12" + "x" have one hash and are two events), or that the client named the event itself.
    """
    if event.event_id is not None:
        joined, split = f"{tenant}{event.event_id}", "id"
    else:
        joined = f"{tenant}{event.session_id}{event.event_type}{event.timestamp}"
        split = f"{len(event.session_id)}.{len(event.event_type)}"
    return hashlib.md5(joined.encode(), usedforsecurity=False).hexdigest(), split


def digest_of(body: bytes) -> str:
    """Sixteen hexadecimal digits that tell one content from another under the same name."""
    return hashlib.blake2b(body, digest_size=8).hexdigest()


def decode_json(raw: bytes) -> Any:
    """Any JSON value. Raises Rejected when it is none, or none that we can store."""
    try:
        return _decode(raw)
    except RecursionError:
        raise Rejected("", f"is nested deeper than {DEPTH_LIMIT} levels", limit=DEPTH_LIMIT) from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Rejected("", f"is not JSON that can be stored: {error}") from None


def parse_event(raw: bytes) -> Event:
    """An event from a JSON object. Raises Rejected; what it returns can be stored by every table."""
    return check_event(decode_json(raw), raw)


def check_event(members: Any, raw: bytes) -> Event:
    """An event from a decoded JSON object and the bytes it was decoded from."""
    if type(members) is not dict:
        raise Rejected("", "must be a JSON object")
    body = _encode(members)
    if _needs_a_closer_look(members, raw, body):
        _look_closer(raw)
    timestamp = _text(members, "timestamp", 64)
    return Event(
        session_id=_text(members, "session_id", NAME_LIMIT_BYTES),
        event_type=_text(members, "event_type", NAME_LIMIT_BYTES),
        timestamp=timestamp,
        timestamp_us=microseconds(timestamp),
        event_id=None if members.get("event_id") is None else _text(members, "event_id", NAME_LIMIT_BYTES),
        members=members,
        body=body,
    )


def _text(members: dict[str, Any], field: str, limit_bytes: int) -> str:
    text = members.get(field)
    if type(text) is not str:
        raise Rejected(field, "is missing" if field not in members else "must be a string")
    if not text:
        raise Rejected(field, "must not be empty")
    if len(text) > limit_bytes or (not text.isascii() and len(text.encode()) > limit_bytes):
        raise Rejected(field, f"is longer than {limit_bytes} bytes", limit=limit_bytes, value=len(text.encode()))
    return text


def microseconds(timestamp: str) -> int:
    """RFC 3339 to microseconds since the epoch; digits past the microsecond are rounded."""
    try:
        moment = (msgspec.convert(timestamp, _Moment) - EPOCH) // MICROSECOND
    except msgspec.ValidationError:
        raise Rejected("timestamp", "must be an RFC 3339 date and time with an offset, e.g. 2026-01-01T10:00:00Z") from None
    if not FIRST_US <= moment <= LAST_US:
        raise Rejected("timestamp", "must lie between the years 1 and 9999 in UTC")
    return moment


def _needs_a_closer_look(members: dict[str, Any], raw: bytes, body: bytes) -> bool:
    """Whether the JSON may hold what some table cannot: cheap signs first, so that nearly all events skip the slow check.

    Only an escape can hide a NUL, and without escapes each key and string has two quotes in `raw` and in `body`, so a
    difference means that a key stood there twice.
    """
    nested = raw.count(b"[") + raw.count(b"{")
    return (
        b"\\" in raw
        or raw.count(b'"') != body.count(b'"')
        or nested > DEPTH_LIMIT
        or (nested > 1 and _long_digits(raw) is not None)
        or any(type(value) is int and not -INTEGER_LIMIT <= value < INTEGER_LIMIT for value in members.values())
    )


def _look_closer(raw: bytes) -> None:
    """Refuse duplicate keys, NUL, integers past 64 bits and deep nesting."""
    if _depth(raw) > DEPTH_LIMIT:
        raise Rejected("", f"is nested deeper than {DEPTH_LIMIT} levels", limit=DEPTH_LIMIT, value=_depth(raw))
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
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise Rejected(twice, "stands twice in one object")
    return members


def _no_constant(name: str) -> NoReturn:
    raise Rejected("", f"holds {name}, which is not JSON")


def _depth(raw: bytes) -> int:
    """The deepest nesting of a valid JSON text."""
    deepest = depth = 0
    for token in re.findall(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', raw):
        if token in (b"[", b"{"):
            depth += 1
            deepest = max(deepest, depth)
        elif token in (b"]", b"}"):
            depth -= 1
    return deepest
