"""Import foreign histories: events with the timestamps they have.

They are appended like those of a request. A line that is no event is refused and named, and the import goes on. To import a
file twice is safe: an event that the log has is answered `duplicate`. This file reads NDJSON; csv_rows reads CSV.
"""

import codecs
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO

import msgspec

from streams.append import CALL_LIMIT_BYTES, CALL_LIMIT_EVENTS, Receipt
from streams.batches import batches
from streams.event import Event, parse_event
from streams.log import Log
from streams.runtime.retry import retry
from streams.transfer.format import lines_of
from streams.validation import Rejected


class Line(msgspec.Struct, frozen=True):
    """A line of the file, or the lines of a CSV row.

    `number` is that of the first line, `event` the event or why it is none.
    """

    number: int
    raw: bytes
    event: Event | Rejected


class Refusal(msgspec.Struct, frozen=True):
    """A line that did not become a record, and why."""

    line: int
    field: str
    reason: str
    text: str


class EventImport:
    """One import.

    `counts` by status, and `line`, the last line that is imported, also hold when it ends with an error.
    """

    def __init__(self, log: Log, tenant: str, *, refuse: Callable[[Refusal], None], wait_seconds: float = 60.0) -> None:
        self._log = log
        self._tenant = tenant
        self._refuse = refuse
        self._wait_seconds = wait_seconds
        self.counts = Counter(accepted=0, duplicate=0, conflict=0, rejected=0)
        self.line = 0

    async def run(self, lines: Iterable[Line], *, show: Callable[[int], None] = lambda line: None) -> None:
        """Append the events of the lines.

        Raises BadTenant, TenantDeleted, LogUnavailable, LogFull, LogRefused.
        """
        parts = batches(lines, max_items=CALL_LIMIT_EVENTS, max_bytes=CALL_LIMIT_BYTES, size_of=lambda line: len(line.raw))
        for batch in parts:
            await self._append(batch)
            self.line = batch[-1].number
            show(self.line)

    async def _append(self, batch: Sequence[Line]) -> None:
        events = [line.event for line in batch if isinstance(line.event, Event)]
        receipts: list[Receipt] = []
        if events:
            receipts = await retry(lambda: self._log.append(self._tenant, events), seconds=self._wait_seconds)
        next_receipt = iter(receipts)
        for line in batch:
            outcome = line.event if isinstance(line.event, Rejected) else next(next_receipt)
            self.counts["rejected" if isinstance(outcome, Rejected) else outcome.status] += 1
            if refusal := _refusal_of(line, outcome):
                self._refuse(refusal)


def _refusal_of(line: Line, outcome: Receipt | Rejected) -> Refusal | None:
    text = line.raw.rstrip(b"\r\n").decode(errors="backslashreplace")
    if isinstance(outcome, Rejected):
        return Refusal(line.number, outcome.field, outcome.reason, text)
    if outcome.status == "conflict":
        reason = f"conflict: the event at position {outcome.position} has the same identity and other content"
        return Refusal(line.number, "", reason, text)
    return None


# -- NDJSON --------------------------------------------------------------------------------------------------------------


def ndjson_lines(file: BinaryIO, limit_bytes: int) -> Iterator[Line]:
    """The lines of an NDJSON file; blank lines are skipped.

    A line is an event as the ingest endpoint accepts it.
    """
    for number, line in enumerate(lines_of(file, limit_bytes + 1), 1):
        if line.strip():
            raw = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            yield Line(number, line, _parse(raw.removesuffix(b"\n"), limit_bytes))


def _parse(raw: bytes, limit_bytes: int) -> Event | Rejected:
    try:
        refuse_large(raw, limit_bytes)
        return parse_event(raw)
    except Rejected as error:
        return error.with_traceback(None)


def refuse_large(raw: bytes, limit_bytes: int) -> None:
    """Raises Rejected when an event has more bytes than the limit."""
    if len(raw) > limit_bytes:
        raise Rejected("", f"the event is larger than {limit_bytes} bytes", limit=limit_bytes, value=len(raw))
