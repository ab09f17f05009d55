"""Forecasts of records in quarantine, and dropping them."""

from collections.abc import AsyncIterator

import msgspec

from projector.projection import outcome_of, row_of
from projector.store import Selection, Store
from streams import DEAD_LETTER_VERSION, Log, Record, Rejected, control, dead_letter
from streams.runtime import failpoint


class Forecast(msgspec.Struct, frozen=True):
    """What a record in quarantine would become, and why.

    `outcome` is row, control_record, late_duplicate, conflict, invalid, lost, or the reason of a dead letter.
    """

    tenant: str
    position: int
    outcome: str
    words: str

    @property
    def leaves(self) -> bool:
        """Whether the record would not be in quarantine any more."""
        return self.outcome in ("row", "control_record", "late_duplicate")


async def forecasts(log: Log, store: Store, selection: Selection) -> AsyncIterator[Forecast]:
    """What each record in quarantine would become now.

    The record in the log decides, which a rebuild reads, or else the stored body.

    A record that is earlier in the log may become a row, too, so only the rebuild says for sure. Raises LogUnavailable.
    """
    for rows in store.quarantine.pages(selection):
        records = await log.find_each([(row.tenant_id, row.position) for row in rows])
        for row, record in zip(rows, records, strict=True):
            stored = Record(row.position, row.received_at_us, 1, row.body) if row.reason != "lost" else None
            yield Forecast(row.tenant_id, row.position, *_outcome(store, row.tenant_id, record or stored))


def _outcome(store: Store, tenant: str, record: Record | None) -> tuple[str, str]:
    """What a record would become beside the rows, and a detail."""
    if record is None:
        return "lost", "the record is missing from the log"
    try:
        if record.version == control.VERSION:
            return "control_record", str(control.parse(record))
        if record.version == DEAD_LETTER_VERSION:
            letter = dead_letter.parse(record)
            return letter.reason, letter.detail
        row = row_of(tenant, record)
    except (Rejected, UnicodeError) as error:
        return "invalid", str(error)
    known = store.queries.known_event(row)
    outcome = outcome_of(row, known)
    if known is None or outcome == "row":
        return outcome, f"{row.event_type} of session {row.session_id} at {row.timestamp}"
    return outcome, f"the event of that name is at position {known.position}"


async def drop(log: Log, store: Store, selection: Selection) -> tuple[int, int]:
    """Append control records that drop a selection of one tenant.

    Returns how many records they name and the last control record's position, which is 0 when there was nothing to drop.
    Raises LogMissing, TenantDeleted, LogFull, LogUnavailable.
    """
    assert selection.tenant is not None
    store.check_version()
    dropped = last = 0
    for positions in store.quarantine.positions(selection):
        last = await control.append(log.connection, selection.tenant, control.Drop(positions))
        dropped += len(positions)
        failpoint("between_control_record_and_apply")
    return dropped, last
