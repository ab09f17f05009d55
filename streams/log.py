"""The log: events go to the end of their tenant's stream, each once, and are read again from any position."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, Self

import msgspec
from redis.exceptions import ResponseError

from streams.append import ENTRY_OVERHEAD_BYTES, Appender, Receipt
from streams.connection import Connection
from streams.errors import ArchiveUnavailable, DamagedArchive, Gap, LogUnavailable
from streams.event import Event, Record
from streams.keys import PARTITIONS, keys_of, log_prefix, tenants_key, usage_prefix
from streams.limits import NO_LIMITS, Limits

PAGE_RECORDS = 500  # of the largest, a reply of 32 MiB
PAGE_BYTES = 8 * 1024 * 1024
SAMPLE_RECORDS = 64
TIME_DIGITS, VERSION_DIGITS = 18, 4  # of an entry that we wrote; trim.lua knows them, too


class Counts(msgspec.Struct, frozen=True):
    """How many events of a tenant were not accepted, by what they were answered. Counted before the answer."""

    duplicate: int = 0
    conflict: int = 0
    rejected: int = 0
    limited: int = 0


class LogSummary(msgspec.Struct, frozen=True):
    """What a log says of itself: its last position, how many records the server holds, how many left it for the archive, and
    what the door did not accept."""

    tenant: str
    last: int
    held: int
    counts: Counts = Counts()
    archived: int = 0

    @property
    def has_gap(self) -> bool:
        """Whether a record between 1 and the last is missing."""
        return self.held != self.last - self.archived


class Log:
    """The logs of all tenants: their live part on one server, what has left it in an archive, if there is one."""

    def __init__(self, connection: Connection, *, dedup_window_seconds: float = 86_400.0, archive_url: str = "") -> None:
        self.connection = connection
        self.archive_url = archive_url
        self._appender = Appender(connection, dedup_window_seconds=dedup_window_seconds)

    async def __aenter__(self) -> Self:
        await self.connection.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._appender.drain()
        await self.connection.__aexit__()

    async def append(
        self, tenant: str, events: Sequence[Event], *, limits: Limits = NO_LIMITS, rejected: int = 0
    ) -> list[Receipt]:
        """Put events at the end of a tenant's log, each once and as many as its limits let in; a receipt for each, in order.
        `rejected` more, which nobody could append, are counted.

        Raises LogUnavailable (some may have been written: appending them again is safe), LogFull, LogRefused, LogBusy,
        TenantDeleted. Appends that wait while others are on their way go out together (group commit), so one fsync serves many.
        """
        return await self._appender.append(tenant, events, limits=limits, rejected=rejected)

    @property
    def waiting_bytes(self) -> int:
        """How many bytes of events wait in this process to be appended."""
        return self._appender.waiting_bytes

    async def read(self, tenant: str, after: int, *, through: int | None = None) -> AsyncIterator[list[Record]]:
        """Pages of records behind position `after`, up to `through` or the end the log has when it gets there.

        Pages are bounded in records and bytes. So much is asked for as would be a page if records are like the last ones: to
        have a script count bytes costs the server ten times the read. What is missing before or between them is looked for in the
        archive. Raises Gap when a page does not begin at the next position, after it has given the records before the hole;
        LogUnavailable.
        """
        position, wanted = after, PAGE_RECORDS
        while through is None or position < through:
            records = await self._page(tenant, position, wanted if through is None else min(wanted, through - position))
            whole = _before_gap(records, position)
            for page in _pages(whole):
                yield page
                position = page[-1].position
                wanted = max(1, min(PAGE_RECORDS, PAGE_BYTES // mean_bytes(page[-SAMPLE_RECORDS:])))
            if records and len(whole) == len(records):
                continue
            until = records[len(whole)].position - 1 if records else through
            if until is None and position:
                return
            if until is not None and through is not None:
                until = min(until, through)
            async with aclosing(self._archived(tenant, position, until)) as pages:
                async for page in pages:
                    yield page
                    position = page[-1].position
            if until is None:
                return
            if position < until:
                raise Gap(tenant, position + 1, until)

    async def _archived(self, tenant: str, after: int, through: int | None) -> AsyncGenerator[list[Record], None]:
        """Pages of archived records behind a position. Raises Gap for what is damaged, LogUnavailable."""
        if not self.archive_url:
            return
        from streams.archive.store import Archive  # not above: pyarrow takes half a second to load

        position = after
        try:
            pages = (await asyncio.to_thread(Archive, self.archive_url)).read(tenant, after)
            while (records := await asyncio.to_thread(next, pages, None)) is not None:
                for page in _pages([record for record in records if through is None or record.position <= through]):
                    yield page
                    position = page[-1].position
                if position == through:
                    return
        except DamagedArchive as error:
            raise Gap(tenant, position + 1, error.last or through or position + 1, str(error)) from error
        except ArchiveUnavailable as error:
            raise LogUnavailable(f"the archive: {error}") from error

    async def find(self, tenant: str, position: int) -> Record | None:
        """The record at a position, or None. Raises LogUnavailable."""
        [record] = await self.find_each([(tenant, position)])
        return record

    async def find_each(self, places: Sequence[tuple[str, int]]) -> list[Record | None]:
        """The record at each of some places, (tenant, position), or None; in few round trips, and each segment of the archive
        read once. Raises LogUnavailable."""
        found: list[Record | None] = []
        for begin in range(0, len(places), PAGE_RECORDS):
            some = places[begin : begin + PAGE_RECORDS]
            calls = [("XRANGE", keys_of(tenant).log, f"{position}-0", f"{position}-0") for tenant, position in some]
            for reply in await self.connection.calls(calls):
                if isinstance(reply, ResponseError):
                    raise LogUnavailable(str(reply)) from reply
                found.append(record_of(reply[0]) if reply else None)
        missing: dict[str, list[int]] = {}
        for (tenant, position), record in zip(places, found, strict=True):
            if record is None and position:
                missing.setdefault(tenant, []).append(position)
        if not missing or not self.archive_url:
            return found
        archived = await asyncio.to_thread(_find_archived, self.archive_url, missing)
        return [record or archived.get(place) for record, place in zip(found, places, strict=True)]

    async def _page(self, tenant: str, after: int, count: int) -> list[Record]:
        try:
            entries = await self.connection.call("XRANGE", keys_of(tenant).log, f"{after + 1}-0", "+", "COUNT", count)
        except ResponseError as error:
            raise LogUnavailable(str(error)) from error
        return records_of(entries)

    async def named(self, tenant: str, event_hash: str) -> list[int]:
        """The positions of the events of that hash within the window; more than one when their splits differ."""
        value: bytes | None = await self.connection.call("GET", keys_of(tenant).dedup + event_hash)
        return [int(claim.split(b"/")[0]) for claim in (value or b"").split()]

    async def last_position(self, tenant: str) -> int:
        """The position of a tenant's newest record, 0 when it has none."""
        newest = await self.connection.call("XREVRANGE", keys_of(tenant).log, "+", "-", "COUNT", 1)
        return int(newest[0][0].split(b"-")[0]) if newest else 0

    async def holds(self, tenant: str) -> bool:
        """Whether a tenant has a log. Raises LogUnavailable."""
        return bool(await self.connection.call("EXISTS", keys_of(tenant).log))

    async def summaries(self, partitions: Sequence[int] = range(PARTITIONS)) -> list[LogSummary]:
        """Every tenant that the door has heard of, by name, with what its log says of itself."""
        calls = [([tenants_key(partition)], [log_prefix(partition), usage_prefix(partition)]) for partition in partitions]
        found = []
        for reply in await self.connection.run("summaries", calls):
            if isinstance(reply, Exception):
                raise LogUnavailable(str(reply))
            for tenant, last, held, archived, *counts in reply:
                counted = Counts(*(int(count or 0) for count in counts))
                found.append(LogSummary(tenant.decode(), int(last), held, counted, int(archived or 0)))
        return sorted(found, key=lambda summary: summary.tenant)

    async def gaps(self, summary: LogSummary, *, limit: int = 20) -> list[tuple[int, int]]:
        """The first ranges of positions that a log misses, from 1 to its last position."""
        missing: list[tuple[int, int]] = []
        position = 0
        while position < summary.last and len(missing) < limit:
            try:
                async for page in self.read(summary.tenant, position, through=summary.last):
                    position = page[-1].position
            except Gap as gap:
                missing.append((gap.first, gap.last))
                position = gap.last
        return missing


def _find_archived(url: str, missing: dict[str, list[int]]) -> dict[tuple[str, int], Record]:
    """The archived records at positions of tenants. Raises LogUnavailable."""
    from streams.archive.store import Archive  # not above: pyarrow takes half a second to load

    found: dict[tuple[str, int], Record] = {}
    try:
        archive = Archive(url)
        for tenant, positions in missing.items():
            with contextlib.suppress(DamagedArchive):  # it is named by whoever reads on
                found |= {(tenant, position): record for position, record in archive.find(tenant, positions).items()}
    except ArchiveUnavailable as error:
        raise LogUnavailable(f"the archive: {error}") from error
    return found


def records_of(entries: Sequence[Any]) -> list[Record]:
    """Records from raw stream entries; ids that are no positions were written by others and are left out."""
    return [record_of(entry) for entry in entries if entry[0].endswith(b"-0")]


def record_of(entry: Any) -> Record:
    """A record from a raw stream entry; version 0, with all its fields, when Penstock did not write it so."""
    entry_id, fields = entry
    position = int(entry_id.partition(b"-")[0])
    try:
        event_key, event, received_key, received_at_us, version_key, version = fields
        ours = event_key == b"event" and received_key == b"received_at_us" and version_key == b"version"
        fits = (
            received_at_us.isdigit()
            and len(received_at_us) <= TIME_DIGITS
            and version.isdigit()
            and len(version) <= VERSION_DIGITS
        )
        if ours and fits:
            return Record(position, int(received_at_us), int(version), event)
    except (TypeError, ValueError):
        pass  # other fields
    return Record(position, 0, 0, b" ".join(fields or ()))


def mean_bytes(records: Sequence[Record]) -> int:
    """What a record of these takes in memory, about."""
    return sum(len(record.body) for record in records) // len(records) + ENTRY_OVERHEAD_BYTES


def _pages(records: list[Record]) -> list[list[Record]]:
    """Records in pages of at most so many bytes."""
    sizes = [len(record.body) for record in records]
    if sum(sizes) <= PAGE_BYTES:
        return [records] if records else []
    pages: list[list[Record]] = [[]]
    left = PAGE_BYTES
    for record, size in zip(records, sizes, strict=True):
        if size > left and pages[-1]:
            pages.append([])
            left = PAGE_BYTES
        pages[-1].append(record)
        left -= size
    return pages


def _before_gap(records: list[Record], after: int) -> list[Record]:
    """The records that follow `after` without a gap."""
    if not records or records[-1].position == after + len(records):
        return records
    return [record for i, record in enumerate(records, after + 1) if record.position == i]
