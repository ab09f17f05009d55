"""An exported log put into another server: each record at its position, or nothing.

Twice is once: what is there already is compared, and a batch is written only where the log ends just before it. So an
import may be interrupted anywhere and begun again, and whoever else writes to that log is noticed at once.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from streams import dead_letter
from streams.append import CALL_LIMIT_BYTES, CALL_LIMIT_EVENTS, refusal_of
from streams.connection import Reply
from streams.erasure.suppression import suppress_erased
from streams.errors import PenstockError
from streams.event import DEAD_LETTER_VERSION, EVENT_VERSION, Event, Record, content_digest, event_identity, parse_body
from streams.keys import READY_CHANNEL, keys_of, ready_prefix
from streams.log import Log
from streams.runtime.progress import Show
from streams.runtime.retry import retry
from streams.transfer.format import BadLine, Header, read_log
from streams.validation import Rejected

DEDUPLICATED_VERSIONS = (EVENT_VERSION, DEAD_LETTER_VERSION)  # of the records whose names the door knows


class LogDiffers(PenstockError):
    """The log holds another record at a position than the file, or none."""

    def __init__(self, tenant: str, position: int, held: Record | None, *, meanwhile: bool) -> None:
        holds = "holds another record than the file" if held else "holds no record"
        why = "; somebody else writes to it" if meanwhile else ""
        super().__init__(f"the log of {tenant} {holds} at position {position}{why}")
        self.position = position


class LogEndsBefore(PenstockError):
    """The log ends before the position behind which the file goes on."""

    def __init__(self, tenant: str, last: int, after: int) -> None:
        super().__init__(f"the log of {tenant} ends at position {last}, and the file goes on behind position {after}")


class Restore:
    """One import: what it has come to so far, also when it ended with an error."""

    def __init__(self, log: Log, *, dedup_window_seconds: float, wait_seconds: float = 60.0) -> None:
        self._log = log
        self._window_us = int(dedup_window_seconds * 1_000_000)
        self._wait_seconds = wait_seconds
        self._last = 0
        self.tenant = ""
        self.position = 0
        self.written = 0
        self.compared = 0

    async def run(self, lines: Iterable[bytes], *, tenant: str | None = None, show: Show = lambda done, total: None) -> None:
        """Put a file's records into the log. Raises BadLine (what stands before that line was put there), LogDiffers,
        LogEndsBefore, TenantDeleted, LogUnavailable, LogFull, LogRefused."""
        await self.take(read_log(lines), tenant=tenant, show=show)

    async def take(
        self, items: Iterator[Header | Record], *, tenant: str | None = None, show: Show = lambda done, total: None
    ) -> None:
        """The same with headers and records that follow each other without a gap, wherever they come from."""
        for part in _batches(items):
            if isinstance(part, Header):
                await self._begin(part, tenant)
                begin, through = part.after, part.through
            else:
                await self._put(part)
            show(self.position - begin, through - begin)

    async def _begin(self, header: Header, tenant: str | None) -> None:
        if tenant not in (None, header.tenant):
            raise BadLine(
                1, f"says that this is the log of {header.tenant}: events' names hold it, so it cannot become {tenant}'s"
            )
        keys_of(header.tenant)
        self._last = await retry(lambda: self._log.last_position(header.tenant), seconds=self._wait_seconds)
        if self._last < header.after:
            raise LogEndsBefore(header.tenant, self._last, header.after)
        self.tenant, self.position = header.tenant, header.after

    async def _put(self, records: Sequence[Record]) -> None:
        """See that the log has these records: compare those it has, write the others. The door keeps out what they keep out."""
        await retry(partial(suppress_erased, self._log.connection, self.tenant, records), seconds=self._wait_seconds)
        while records:
            there = max(0, self._last - records[0].position + 1)
            if there:
                await self._compare(records[:there])
                records = records[there:]
            else:
                last = await retry(partial(self._append, records), seconds=self._wait_seconds)
                if last < self._last:
                    raise LogEndsBefore(self.tenant, last, self._last)
                if last == self._last:
                    self._last = self.position = records[-1].position
                    self.written += len(records)
                    return
                self._last = last  # by a call whose answer was lost, or by somebody else

    async def _compare(self, records: Sequence[Record]) -> None:
        places = [(self.tenant, record.position) for record in records]
        held = await retry(lambda: self._log.find_each(places), seconds=self._wait_seconds)
        for record, other in zip(records, held, strict=True):
            if record != other:
                raise LogDiffers(self.tenant, record.position, other, meanwhile=self.written > 0)
            self.position = record.position
            self.compared += 1

    async def _append(self, records: Sequence[Record]) -> int:
        """The log's last position before; the records were appended if they are the next."""
        call = _script_call(self.tenant, records, self._window_us, time.time_ns() // 1000)
        [reply] = await self._log.connection.run("import_records", [call])
        return int(_value(reply))


def _value(reply: Reply) -> Reply:
    if isinstance(reply, Exception):
        raise refusal_of(reply)
    return reply


def _batches(items: Iterator[Header | Record]) -> Iterator[Header | list[Record]]:
    """Records in batches that one script call may take. Those before a bad line come before its error."""
    batch: list[Record] = []
    size = 0
    try:
        for item in items:
            full = len(batch) == CALL_LIMIT_EVENTS or size >= CALL_LIMIT_BYTES
            if batch and (full or isinstance(item, Header)):
                yield batch
                batch, size = [], 0
            if isinstance(item, Header):
                yield item
            else:
                batch.append(item)
                size += len(item.body)
    except BadLine:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _script_call(tenant: str, records: Sequence[Record], window_us: int, now_us: int) -> tuple[list[str], list[Any]]:
    """The keys and arguments of restore.lua."""
    keys = keys_of(tenant)
    names = [keys.log, keys.tenants, keys.groups, keys.deleted]
    first = records[0].position
    arguments: list[Any] = [tenant, keys.digest, ready_prefix(keys.partition), keys.partition, READY_CHANNEL, first, len(records)]
    for record in records:
        arguments += (record.received_at_us, record.version, record.body)
    dedup_keys, values = dedup_keys_of(tenant, records, window_us, now_us)
    return names + dedup_keys, arguments + values


def dedup_keys_of(tenant: str, records: Sequence[Record], window_us: int, now_us: int) -> tuple[list[str], list[Any]]:
    """The keys of what is left of records' claims on their names, and for each: position, digest, split, remaining_ms."""
    names: list[str] = []
    arguments: list[Any] = []
    for record in records:
        remaining_ms = min(window_us, record.received_at_us + window_us - now_us) // 1000
        if remaining_ms > 0 and record.version in DEDUPLICATED_VERSIONS and (event := _event_of(record)):
            event_hash, hash_parts = event_identity(tenant, event)
            names.append(keys_of(tenant).dedup + event_hash)
            arguments += (record.position, content_digest(event), hash_parts, remaining_ms)
    return names, arguments


def _event_of(record: Record) -> Event | None:
    """What the door appended as a record, None when it did not: nobody can send it again."""
    try:
        return parse_body(record.body) if record.version == EVENT_VERSION else dead_letter.parse_event(record)
    except (Rejected, UnicodeError):
        return None
