"""Times as foreign clients send them, and the skew of their clocks. Pure."""

from datetime import UTC, datetime
from typing import Any

from api.formats.format import OpenedRequest
from streams import Rejected
from streams.validation import microseconds

MILLISECONDS_FROM = 10**11  # seconds stay below it until the year 5138, milliseconds have been above it since 1973
CLOCK_LIMIT_US = 3_650 * 86_400 * 1_000_000  # a larger difference is no skew: the client has no clock


def rfc3339_of(moment_us: int) -> str:
    """RFC 3339 for microseconds since 1970.

    Raises Rejected outside the years 1 to 9999.
    """
    try:
        moment = datetime.fromtimestamp(moment_us // 1_000_000, UTC).replace(microsecond=moment_us % 1_000_000, tzinfo=None)
    except (OverflowError, ValueError, OSError):
        raise Rejected("timestamp", "must lie between the years 1 and 9999") from None
    return moment.isoformat() + "Z"


def rfc3339_of_number(number: float) -> str:
    """RFC 3339 for seconds or milliseconds since 1970.

    The size of the number tells which it is. Raises Rejected like rfc3339_of.
    """
    return rfc3339_of(round(number * (1_000 if abs(number) >= MILLISECONDS_FROM else 1_000_000)))


def clock_skew_us(sent_at: object, received_at_us: int) -> int:
    """By how many microseconds a client's clock is slow.

    `sent_at` is when the client says that it sent the request; without a usable one the result is 0. The time that the request
    travelled is included, as Segment defines it: https://segment.com/docs/connections/spec/common/#timestamps.
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

    That is the time that the client says, corrected for its clock. Where it says none, it is when the request arrived.
    """
    if timestamp in (None, ""):
        return {"timestamp": "", "clock_us": opened.received_at_us}
    return {"timestamp": timestamp, "clock_us": opened.clock_us}
