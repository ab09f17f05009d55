"""Which JSON can be stored: the checks that a client's event must pass.

Pure. Cheap signs come first, so that nearly all events skip the slow walk over their values.
"""

import json
import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NoReturn

import msgspec

NAME_LIMIT_BYTES = 256
TIMESTAMP_LIMIT_BYTES = 64
DEPTH_LIMIT = 100
INTEGER_LIMIT = 2**63
MICROSECOND = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_US = (datetime(1, 1, 1, tzinfo=UTC) - EPOCH) // MICROSECOND
LAST_US = (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC) - EPOCH) // MICROSECOND

_decode = msgspec.json.Decoder().decode
_decode_moment: Callable[[str], datetime] = msgspec.json.Decoder(Annotated[datetime, msgspec.Meta(tz=True)]).decode
_digits_as_zeros = bytes(ord("0") if chr(byte) in "0123456789" else ord(" ") for byte in range(256))
_nineteen_digits = b"0" * 19


class Rejected(Exception):
    """An event cannot be accepted.

    Carries the field (empty for the whole event), the reason, and the limit and the value where a limit was passed.
    """

    def __init__(self, field: str, reason: str, *, limit: int | None = None, value: int | None = None) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field = field
        self.reason = reason
        self.limit = limit
        self.value = value


def decode_json(raw: bytes) -> Any:
    """Any JSON value.

    Raises Rejected when the bytes are not JSON that can be stored.
    """
    try:
        return _decode(raw)
    except RecursionError:
        raise Rejected("", f"is nested deeper than {DEPTH_LIMIT} levels", limit=DEPTH_LIMIT) from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Rejected("", f"is not JSON that can be stored: {error}") from None


def pop_text(members: dict[str, Any], field: str, limit_bytes: int) -> str:
    """Remove a text from an event's members and return it. Raises Rejected."""
    return check_text(field, members.pop(field, None), limit_bytes)


def check_text(field: str, text: Any, limit_bytes: int) -> str:
    """The value of a field, which must be a text of 1 to `limit_bytes` bytes.

    Raises Rejected.
    """
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
    """An RFC 3339 timestamp in microseconds since the epoch.

    Further digits are rounded. Raises Rejected.
    """
    try:
        # As JSON: msgspec.convert looks its type up at each call and takes five times as long.
        moment = _decode_moment(f'"{timestamp}"')
    except (msgspec.MsgspecError, UnicodeError):
        moment = None
    if moment is None or "\\" in timestamp:  # JSON would read a backslash as an escape
        raise Rejected("timestamp", "must be an RFC 3339 date and time with an offset, e.g. 2026-01-01T10:00:00Z")
    moment_us = (moment - EPOCH) // MICROSECOND
    if not FIRST_US <= moment_us <= LAST_US:
        raise Rejected("timestamp", "must lie between the years 1 and 9999 in UTC")
    return moment_us


def check_properties(properties: dict[str, Any], raw: bytes, body: bytes) -> None:
    """Refuse an event that a table cannot store. Raises Rejected.

    `raw` is the event as the client sent it, `body` as the log stores it. Without escapes each key and each string has two
    quotes in both, and one key of `body` is ours: any other count means that a key stands twice in `raw`.
    """
    if raw.count(b'"') != body.count(b'"') - 2 or _may_hide_values(raw) or any(map(_is_too_large, properties.values())):
        _check_values(raw)


def check_body(body: bytes) -> None:
    """Refuse a body that a table cannot store.

    Raises Rejected. Its properties are an inner object.
    """
    if _may_hide_values(body):
        _check_values(body)


def _may_hide_values(raw: bytes) -> bool:
    """Whether JSON may hold a value that tables cannot store.

    It may be too deep, hold a NUL, or hold an integer past 64 bits in an inner object. Only an escape can hide a NUL. A regular
    expression takes ten times as long to find no row of digits.
    """
    nested = raw.count(b"[") + raw.count(b"{")
    return b"\\" in raw or nested > DEPTH_LIMIT or (nested > 1 and _nineteen_digits in raw.translate(_digits_as_zeros))


def _is_too_large(value: Any) -> bool:
    return type(value) is int and not -INTEGER_LIMIT <= value < INTEGER_LIMIT


def _check_values(raw: bytes) -> None:
    """Refuse duplicate keys, NUL, integers past 64 bits and deep nesting.

    Raises Rejected.
    """
    if depth_of(raw) > DEPTH_LIMIT:
        raise Rejected("", f"is nested deeper than {DEPTH_LIMIT} levels", limit=DEPTH_LIMIT, value=depth_of(raw))
    unchecked = [json.loads(raw, object_pairs_hook=_members_of, parse_constant=_refuse_constant)]
    while unchecked:
        value = unchecked.pop()
        if isinstance(value, dict):
            unchecked.extend(value.keys())
            unchecked.extend(value.values())
        elif isinstance(value, list):
            unchecked.extend(value)
        elif isinstance(value, str) and "\0" in value:
            raise Rejected("", "holds a NUL character, which tables cannot store")
        elif _is_too_large(value):
            raise Rejected("", "holds an integer that does not fit 64 bits; send it as a string")


def _members_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The members of an object. Raises Rejected for a duplicate key."""
    members = dict(pairs)
    if len(members) != len(pairs):
        duplicate, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise Rejected(duplicate, "stands twice in one object")
    return members


def _refuse_constant(name: str) -> NoReturn:
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
