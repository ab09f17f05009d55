"""The dedup keys of records that exist already.

An import and the recovery of a server write them.
"""

from collections.abc import Sequence
from typing import Any

from streams import dead_letter
from streams.event import DEAD_LETTER_VERSION, EVENT_VERSION, Event, Record, content_digest, event_identity, parse_body
from streams.keys import keys_of
from streams.validation import Rejected

DEDUPLICATED_VERSIONS = (EVENT_VERSION, DEAD_LETTER_VERSION)  # of records that have a dedup key


def dedup_keys_of(tenant: str, records: Sequence[Record], window_us: int, now_us: int) -> tuple[list[str], list[Any]]:
    """The dedup keys of records, and the script arguments for them.

    Records older than the deduplication window have none. Each key has four arguments:
    position, digest, hash_parts, remaining_ms.
    """
    names: list[str] = []
    arguments: list[Any] = []
    for record in records:
        remaining_ms = min(window_us, record.received_at_us + window_us - now_us) // 1000
        if remaining_ms > 0 and record.version in DEDUPLICATED_VERSIONS and (event := _event_in(record)):
            event_hash, hash_parts = event_identity(tenant, event)
            names.append(keys_of(tenant).dedup + event_hash)
            arguments += (record.position, content_digest(event), hash_parts, remaining_ms)
    return names, arguments


def _event_in(record: Record) -> Event | None:
    """The event that was appended as a record.

    None when no client can send it again.
    """
    try:
        return parse_body(record.body) if record.version == EVENT_VERSION else dead_letter.parse_event(record)
    except (Rejected, UnicodeError):
        return None
