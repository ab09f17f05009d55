"""Times from foreign clients, and their clock skew. Pure."""

from datetime import UTC, datetime
from typing import Any

from api.formats.format import OpenedRequest
from streams import Rejected
from streams.validation import microseconds

MILLISECONDS_FROM = 10**11  # seconds stay below it until the year 5138, milliseconds have been above it since 1973
CLOCK_LIMIT_US = 3_650 * 86_400 * 1_000_000  # a larger difference means that the client's clock was never set


def rfc3339_of(moment_us: int) -> str:
    """A time in RFC 3339, from microseconds since 1970.

    Raises Rejected outside the years 1 to 9999.
    """
    try:
        moment = datetime.fromtimestamp(moment_us // 1_000_000, UTC).replace(microsecond=moment_us % 1_000_000, tzinfo=None)
    except (OverflowError, ValueError, OSError):
        raise Rejected("timestamp", "must lie between the years 1 and 9999") from None
    return moment.isoformat() + "Z"


def rfc3339_of_number(number: float) -> str:
    """A time in RFC 3339, from seconds or milliseconds since 1970.

    The size of the number tells its unit. Raises Rejected outside the years 1 to 9999.
    """
    return rfc3339_of(round(number * (1_000 if abs(number) >= MILLISECONDS_FROM else 1_000_000)))


def clock_skew_us(sent_at: object, received_at_us: int) -> int:
    """By how many microseconds a client's clock is slow.

    `sent_at` is the time at which the client says that it sent the request. The result is 0 if that time cannot be used. The
    result includes the time that the request travelled, as Segment defines it:
    https://segment.com/docs/connections/spec/common/#timestamps.
    """
    if type(sent_at) is not str:
        return 0
    try:
        skew_us = received_at_us - microseconds(sent_at)
    except Rejected:
        return 0
    return skew_us if abs(skew_us) <= CLOCK_LIMIT_US else 0


def time_arguments(timestamp: Any, opened: OpenedRequest) -> dict[str, Any]:
    """The arguments of make_event that say when an event happened.

    The time is the client's, corrected for the skew of its clock. Without a time from the client, it is when the request arrived.
    """
    if timestamp in (None, ""):
        return {"timestamp": "", "clock_us": opened.received_at_us}
    return {"timestamp": timestamp, "clock_us": opened.clock_us}
