"""The log: what an event is, how it gets its place, how it is read again. Knows nothing of HTTP or SQL."""

from streams import control, dead_letter
from streams.append import Receipt
from streams.connection import Connection
from streams.consumer import Consumer, Delivery, Lease, ReadRequest, Release
from streams.errors import (
    ArchiveUnavailable,
    BadTenant,
    Gap,
    LogBusy,
    LogFull,
    LogRefused,
    LogUnavailable,
    PenstockError,
    TenantDeleted,
)
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
from streams.keys import PARTITIONS, READY_CHANNEL, TENANT_PATTERN, keys_of, leases_key
from streams.limits import LIMIT_NAMES, NO_LIMITS, Limits
from streams.log import Counts, Log, LogSummary, mean_bytes
from streams.runtime.failpoints import failpoint
from streams.runtime.files import sync
from streams.runtime.logging_setup import configure_logging
from streams.runtime.progress import Progress
from streams.runtime.settings import SettingError, Settings, load_settings
from streams.validation import INTEGER_LIMIT, NAME_LIMIT_BYTES, Rejected, decode_json, microseconds

__all__ = [
    "DEAD_LETTER_VERSION",
    "EVENT_VERSION",
    "INTEGER_LIMIT",
    "LIMIT_NAMES",
    "NAME_LIMIT_BYTES",
    "NO_LIMITS",
    "PARTITIONS",
    "READY_CHANNEL",
    "TENANT_PATTERN",
    "ArchiveUnavailable",
    "BadTenant",
    "Connection",
    "Consumer",
    "Counts",
    "Delivery",
    "Event",
    "Gap",
    "Lease",
    "Limits",
    "Log",
    "LogBusy",
    "LogFull",
    "LogRefused",
    "LogSummary",
    "LogUnavailable",
    "PenstockError",
    "Progress",
    "ReadRequest",
    "Receipt",
    "Record",
    "Rejected",
    "Release",
    "SettingError",
    "Settings",
    "StoredEvent",
    "TenantDeleted",
    "check_event",
    "configure_logging",
    "control",
    "dead_letter",
    "decode_json",
    "digest_of",
    "event_identity",
    "failpoint",
    "keys_of",
    "leases_key",
    "load_settings",
    "make_event",
    "mean_bytes",
    "microseconds",
    "parse_body",
    "parse_event",
    "sync",
]
