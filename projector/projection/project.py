"""The projection: records in, rows out.

Pure: no I/O, no clock, so the same records always give the same rows.

Change what it gives for any record and PROJECTION_VERSION goes up by one: tables of another version are left alone.
"""

from collections.abc import Sequence

import msgspec

from projector.projection.identities import named_in
from projector.projection.rows import Batch, EventRow, KnownEvent, PlacedControl, QuarantineRow
from streams import (
    DEAD_LETTER_VERSION,
    EVENT_VERSION,
    Record,
    Rejected,
    StoredEvent,
    control,
    dead_letter,
    digest_of,
    event_identity,
    parse_body,
)
from streams.validation import microseconds

PROJECTION_VERSION = 4  # 3 knew neither erasure nor events without a session


def project(tenant: str, after: int, records: Sequence[Record], through: int) -> Batch:
    """The batch that the records from `after` + 1 to `through` make, in order.

    A position that is missing was lost.
    """
    rows: list[EventRow] = []
    quarantined: list[QuarantineRow] = []
    placed: list[PlacedControl] = []
    erased: list[int] = []
    named: list[tuple[int, str, str]] = []
    position = after
    for record in records:
        if record.position != position + 1:
            quarantined += _lost(tenant, position + 1, record.position - 1)
        position = record.position
        try:
            if record.version == control.VERSION:
                control_record = control.parse(record)
                if isinstance(control_record, control.Erased):
                    erased.append(position)
                else:
                    placed.append(PlacedControl(position, control_record))
            elif record.version == DEAD_LETTER_VERSION:
                letter = dead_letter.parse(record)
                named.append((position, *event_identity(tenant, dead_letter.parse_event(record))))
                quarantined.append(
                    QuarantineRow(tenant, position, record.received_at_us, letter.reason, letter.detail, letter.raw)
                )
            else:
                rows.append(row_of(tenant, record))
        except (Rejected, UnicodeError) as error:
            quarantined.append(QuarantineRow(tenant, position, record.received_at_us, "invalid", str(error), record.body))
    quarantined += _lost(tenant, position + 1, through)
    digest = digest_of(records[-1].body) if records and position == through else ""
    return Batch(tenant, after, through, digest, rows, quarantined, placed, erased, named)


def _lost(tenant: str, first: int, last: int) -> list[QuarantineRow]:
    detail = "the record is missing from the log"
    return [QuarantineRow(tenant, position, 0, "lost", detail, b"") for position in range(first, last + 1)]


def row_of(tenant: str, record: Record) -> EventRow:
    """The row of one record. Raises Rejected when it cannot become one."""
    if record.version != EVENT_VERSION:
        raise Rejected("version", f"is {record.version}; this projector reads events of version {EVENT_VERSION}")
    event = parse_body(record.body)
    event_hash, hash_parts = event_identity(tenant, event)
    properties = event.properties.decode()
    return EventRow(
        tenant,
        record.position,
        event_hash,
        hash_parts,
        event.event_id,
        event.session_id,
        event.event_type,
        event.timestamp,
        event.timestamp_us,
        record.received_at_us,
        properties,
        "" if event.session_id else named_in(properties).identity,
    )


def content_of(row: EventRow) -> tuple[str, str, str, str]:
    """What two events of one name are compared by."""
    return row.session_id, row.event_type, row.timestamp, row.properties


def outcome_of(row: EventRow, known: KnownEvent | None) -> str:
    """What a row becomes: row, late_duplicate or conflict.

    `known` is the event in the tables that has the row's identity.
    """
    if known is None or known.position > row.position:
        return "row"
    return "late_duplicate" if known.content == content_of(row) else "conflict"


def refused(row: EventRow, reason: str, detail: str) -> QuarantineRow:
    """The quarantined record of a row that the tables refuse."""
    properties = msgspec.Raw(row.properties.encode())
    clock_us = row.timestamp_us - (microseconds(row.timestamp) if row.timestamp else 0)
    event = StoredEvent(row.session_id, row.event_type, row.timestamp, properties, row.event_id, clock_us)
    body = msgspec.json.encode(event, order="sorted")
    return QuarantineRow(row.tenant_id, row.position, row.received_at_us, reason, detail, body)
