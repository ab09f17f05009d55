"""Times as foreign clients send them, and how wrong their clocks are. Pure."""

from datetime import UTC, datetime
from typing import Any

from api.formats.format import Envelope
from streams import Rejected, microseconds

MILLISECONDS_FROM = 10**11  # seconds stay below it until the year 5138, milliseconds have been above it since 1973
CLOCK_LIMIT_US = 3_650 * 86_400 * 1_000_000  # who is off by more has no clock


def text_of(moment_us: int) -> str:
    """RFC 3339, for times that came as a number. Raises Rejected past the years 1 to 9999."""
    try:
        moment = datetime.fromtimestamp(moment_us // 1_000_000, UTC).replace(microsecond=moment_us % 1_000_000, tzinfo=None)
    except (OverflowError, ValueError, OSError):
        raise Rejected("timestamp", "must lie between the years 1 and 9999") from None
    return moment.isoformat() + "Z"


def text_of_number(number: float) -> str:
    """The same of seconds since 1970, or of milliseconds, which such a number tells by its size. Raises Rejected."""
    return text_of(round(number * (1_000 if abs(number) >= MILLISECONDS_FROM else 1_000_000)))


def clock_of(sent: object, received_at_us: int) -> int:
    """By how much a client's clock is behind ours, from when it says that it sent a request; 0 when it says nothing usable. The
    time on the way is in it, as Segment's definition has it: https://segment.com/docs/connections/spec/common/#timestamps."""
    if type(sent) is not str:
        return 0
    try:
        clock_us = received_at_us - microseconds(sent)
    except Rejected:
        return 0
    return clock_us if abs(clock_us) <= CLOCK_LIMIT_US else 0


def timed(timestamp: Any, envelope: Envelope) -> dict[str, Any]:
    """When an event happened, for make_event: as its client says, corrected; or when it came, where its client says nothing."""
    if timestamp in (None, ""):
        return {"timestamp": "", "clock_us": envelope.received_at_us}
    return {"timestamp": timestamp, "clock_us": envelope.clock_us}
