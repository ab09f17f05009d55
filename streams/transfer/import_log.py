"""Import an exported log, with each record at its old position.

Records that the log already has are compared with the file. A batch of other records is written only if the log ends just before
it. An import can therefore be interrupted at any moment and started again, and it notices at once when another process writes to
the log.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any, cast

from streams.append import CALL_LIMIT_BYTES, CALL_LIMIT_EVENTS
from streams.batches import batches
from streams.dedup_keys import dedup_keys_of
from streams.erasure.suppression import suppress_erased
from streams.errors import PenstockError
from streams.event import Record
from streams.keys import keys_of, queue_arguments
from streams.log import Log
from streams.runtime.progress import Show
from streams.runtime.retry import retry
from streams.transfer.format import BadLine, Header, read_log


class LogDiffers(PenstockError):
    """A record of the log is missing, or differs from the file's."""

    def __init__(self, tenant: str, position: int, log_record: Record | None, *, has_other_writer: bool) -> None:
        problem = "holds another record than the file" if log_record else "holds no record"
        reason = "; another process writes to it" if has_other_writer else ""
        super().__init__(f"the log of {tenant} {problem} at position {position}{reason}")
        self.position = position


class LogEndsBefore(PenstockError):
    """The log ends before the position where the file continues."""

    def __init__(self, tenant: str, last: int, after: int) -> None:
        super().__init__(f"the log of {tenant} ends at position {last}, and the file goes on after position {after}")


class LogImport:
    """The import of logs.

    `tenant` and `position` say which record came last. `written` and `compared` are numbers of records. All four are valid even
    if the import ends with an error.
    """

    def __init__(self, log: Log, *, dedup_window_seconds: float, wait_seconds: float = 60.0) -> None:
        self._log = log
        self._window_us = int(dedup_window_seconds * 1_000_000)
        self._wait_seconds = wait_seconds
        self._last = 0
        self.tenant = ""
        self.position = 0
        self.written = 0
        self.compared = 0

    async def run(self, lines: Iterable[bytes], *, tenant: str | None = None, show: Show = lambda position, total: None) -> None:
        """Import the lines of a file.

        If `tenant` is given, the file must hold the log of that tenant. Raises BadLine (the records before the bad line are
        imported), LogDiffers, LogEndsBefore, TenantDeleted, LogUnavailable, LogFull, LogRefused.
        """
        await self.write(read_log(lines), tenant=tenant, show=show)

    async def write(
        self, items: Iterator[Header | Record], *, tenant: str | None = None, show: Show = lambda position, total: None
    ) -> None:
        """Import logs: each is a header and then consecutive records.

        Raises the errors that `run` raises.
        """
        after = through = 0
        for part in _parts(items):
            if isinstance(part, Header):
                await self._begin(part, tenant)
                after, through = part.after, part.through
            else:
                await self._put(part)
            show(self.position - after, through - after)

    async def _begin(self, header: Header, tenant: str | None) -> None:
        if tenant not in (None, header.tenant):
            reason = f"says that this is the log of {header.tenant}"
            raise BadLine(1, f"{reason}: its events' identities include that name, so it cannot become the log of {tenant}")
        keys_of(header.tenant)
        self._last = await retry(lambda: self._log.last_position(header.tenant), seconds=self._wait_seconds)
        if self._last < header.after:
            raise LogEndsBefore(header.tenant, self._last, header.after)
        self.tenant, self.position = header.tenant, header.after

    async def _put(self, records: Sequence[Record]) -> None:
        """Make sure that the log has these records.

        First suppresses the events that their control records suppress. Then compares the records that the log already has, and
        writes the others.
        """
        await retry(partial(suppress_erased, self._log.connection, self.tenant, records), seconds=self._wait_seconds)
        while records:
            overlap = max(0, self._last - records[0].position + 1)
            if overlap:
                await self._compare(records[:overlap])
                records = records[overlap:]
            else:
                last = await retry(partial(self._append, records), seconds=self._wait_seconds)
                if last < self._last:
                    raise LogEndsBefore(self.tenant, last, self._last)
                if last == self._last:
                    self._last = self.position = records[-1].position
                    self.written += len(records)
                    return
                self._last = last  # records were written by another process, or by a call whose reply was lost

    async def _compare(self, records: Sequence[Record]) -> None:
        places = [(self.tenant, record.position) for record in records]
        log_records = await retry(lambda: self._log.find_each(places), seconds=self._wait_seconds)
        for record, log_record in zip(records, log_records, strict=True):
            if record != log_record:
                raise LogDiffers(self.tenant, record.position, log_record, has_other_writer=self.written > 0)
            self.position = record.position
            self.compared += 1

    async def _append(self, records: Sequence[Record]) -> int:
        """Append records if they come next in the log.

        Returns the last position that the log had before the call.
        """
        names, arguments = _script_call(self.tenant, records, self._window_us, time.time_ns() // 1000)
        return int(await self._log.connection.run("import_records", names, arguments))


def _parts(items: Iterator[Header | Record]) -> Iterator[Header | list[Record]]:
    """Each header, then its records in batches for one script call."""
    for is_header, group in groupby(items, key=lambda item: isinstance(item, Header)):
        if is_header:
            yield from cast(Iterator[Header], group)
        else:
            records = cast(Iterator[Record], group)
            limits = {"max_items": CALL_LIMIT_EVENTS, "max_bytes": CALL_LIMIT_BYTES}
            yield from batches(records, **limits, size_of=lambda record: len(record.body))


def _script_call(tenant: str, records: Sequence[Record], window_us: int, now_us: int) -> tuple[list[str], list[Any]]:
    """The keys and arguments of import_records.lua."""
    keys = keys_of(tenant)
    names = [keys.log, keys.tenants, keys.groups, keys.deleted]
    first = records[0].position
    arguments: list[Any] = [*queue_arguments(tenant), first, len(records)]
    for record in records:
        arguments += (record.received_at_us, record.version, record.body)
    dedup_keys, dedup_arguments = dedup_keys_of(tenant, records, window_us, now_us)
    return names + dedup_keys, arguments + dedup_arguments
