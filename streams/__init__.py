"""The log: what an event is, how it is appended, delivered and read.

Knows nothing of HTTP or SQL.

Other packages import from here, from the modules that `__all__` names, and from the folders archive, erasure, runtime, tiering,
transfer and commands.
"""

from streams import control, dead_letter, errors, keys, limits, validation
from streams.append import Receipt
from streams.connection import Connection
from streams.consumer import Consumer, Delivery, Lease, ReadRequest, Release
from streams.event import (
    DEAD_LETTER_VERSION,
    EVENT_VERSION,
    Event,
    Record,
    StoredEvent,
    check_event,
    digest_of,
    event_identity,
    make_event,
    parse_body,
    parse_event,
)
from streams.keys import keys_of
from streams.limits import Limits
from streams.log import Log, LogSummary, mean_bytes
from streams.validation import Rejected

__all__ = [
    "DEAD_LETTER_VERSION",
    "EVENT_VERSION",
    "Connection",
    "Consumer",
    "Delivery",
    "Event",
    "Lease",
    "Limits",
    "Log",
    "LogSummary",
    "ReadRequest",
    "Receipt",
    "Record",
    "Rejected",
    "Release",
    "StoredEvent",
    "check_event",
    "control",
    "dead_letter",
    "digest_of",
    "errors",
    "event_identity",
    "keys",
    "keys_of",
    "limits",
    "make_event",
    "mean_bytes",
    "parse_body",
    "parse_event",
    "validation",
]
