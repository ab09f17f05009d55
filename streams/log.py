"""The log: events are appended to it and read from any position."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, Self

import msgspec

from streams.append import ENTRY_OVERHEAD_BYTES, Appender
from streams.archive import Archive
from streams.batches import batches
from streams.connection import Connection
from streams.errors import ArchiveUnavailable, DamagedArchive, Gap, LogUnavailable
from streams.event import Record
from streams.keys import PARTITIONS, keys_of, log_prefix, tenants_key, usage_prefix

PAGE_RECORDS = 500  # of the largest, a reply of 32 MiB
PAGE_BYTES = 8 * 1024 * 1024
SAMPLE_RECORDS = 64
TIME_DIGITS, VERSION_DIGITS = 18, 4  # of an entry that Penstock wrote; trim.lua knows them, too


class Counts(msgspec.Struct, frozen=True):
    """How many events of a tenant were not accepted, by their answer.

    Counted before the answer is sent.
    """

    duplicate: int = 0
    conflict: int = 0
    rejected: int = 0
    limited: int = 0


class LogSummary(msgspec.Struct, frozen=True):
    """What the server knows of a tenant's log.

    `last` is its last position, `held` how many records the server holds, `archived` how many left it for the archive.
    """

    tenant: str
    last: int
    held: int
    counts: Counts = Counts()
    archived: int = 0

    @property
    def has_gap(self) -> bool:
        """Whether a record between position 1 and the last position is missing."""
        return self.held != self.last - self.archived


class Log:
    """The logs of all tenants, on one server and in an archive.

    The archive has what left the server. `append` is Appender.append.
    """

    def __init__(self, connection: Connection, *, dedup_window_seconds: float = 86_400.0, archive_url: str = "") -> None:
        self.connection = connection
        self.archive_url = archive_url
        self.appender = Appender(connection, dedup_window_seconds=dedup_window_seconds)
        self.append = self.appender.append

    async def __aenter__(self) -> Self:
        await self.connection.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.appender.drain()
        await self.connection.__aexit__()

    # -- records -------------------------------------------------------------------------------------------------------

    async def read(self, tenant: str, after: int, *, through: int | None = None) -> AsyncIterator[list[Record]]:
        """Pages of records after a position.

        They go up to `through`, or to the end of the log. Pages are limited in records and bytes. The server is asked for as
        many records as fill a page if they are as large as the last ones: a script that counts bytes would cost it ten times
        the read. Records that the server does not have are read from the archive. Raises Gap where a page does not begin at the
        next position, after the records before the gap; LogUnavailable.
        """
        position, count = after, PAGE_RECORDS
        while through is None or position < through:
            records = await self._page(tenant, position, count if through is None else min(count, through - position))
            consecutive = _before_gap(records, position)
            for page in _pages(consecutive):
                yield page
                position = page[-1].position
                count = max(1, min(PAGE_RECORDS, PAGE_BYTES // mean_bytes(page[-SAMPLE_RECORDS:])))
            if records and len(consecutive) == len(records):
                continue
            gap_end = records[len(consecutive)].position - 1 if records else through
            if gap_end is None and position:
                return
            if gap_end is not None and through is not None:
                gap_end = min(gap_end, through)
            async with aclosing(self._archived(tenant, position, gap_end)) as pages:
                async for page in pages:
                    yield page
                    position = page[-1].position
            if gap_end is None:
                return
            if position < gap_end:
                raise Gap(tenant, position + 1, gap_end)

    async def _page(self, tenant: str, after: int, count: int) -> list[Record]:
        return records_of(await self.connection.call("XRANGE", keys_of(tenant).log, f"{after + 1}-0", "+", "COUNT", count))

    async def _archived(self, tenant: str, after: int, through: int | None) -> AsyncGenerator[list[Record], None]:
        """Pages of archived records after a position.

        Raises Gap where the archive is damaged, LogUnavailable.
        """
        if not self.archive_url:
            return
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
        """The record, or None, at each of several places (tenant, position).

        Raises LogUnavailable.

        Takes few round trips, and reads each segment of the archive once.
        """
        records: list[Record | None] = []
        for start in range(0, len(places), PAGE_RECORDS):
            part = places[start : start + PAGE_RECORDS]
            calls = [("XRANGE", keys_of(tenant).log, f"{position}-0", f"{position}-0") for tenant, position in part]
            replies = await self.connection.call_each(calls)
            records += [record_of(entries[0]) if entries else None for entries in replies]
        missing: dict[str, list[int]] = {}
        for (tenant, position), record in zip(places, records, strict=True):
            if record is None and position:
                missing.setdefault(tenant, []).append(position)
        if not missing or not self.archive_url:
            return records
        archived = await asyncio.to_thread(_find_archived, self.archive_url, missing)
        return [record or archived.get(place) for record, place in zip(records, places, strict=True)]

    # -- positions -----------------------------------------------------------------------------------------------------

    async def positions_of(self, tenant: str, event_hash: str) -> list[int]:
        """The positions of the events of a hash within the deduplication window.

        Raises LogUnavailable.

        They are several where events of different hash_parts have the same hash.
        """
        value: bytes | None = await self.connection.call("GET", keys_of(tenant).dedup + event_hash)
        return [int(entry.split(b"/")[0]) for entry in (value or b"").split()]

    async def last_position(self, tenant: str) -> int:
        """The position of a tenant's newest record, 0 without a log.

        Raises LogUnavailable.
        """
        newest = await self.connection.call("XREVRANGE", keys_of(tenant).log, "+", "-", "COUNT", 1)
        return int(newest[0][0].split(b"-")[0]) if newest else 0

    async def holds(self, tenant: str) -> bool:
        """Whether a tenant has a log. Raises LogUnavailable."""
        return bool(await self.connection.call("EXISTS", keys_of(tenant).log))

    async def summaries(self, partitions: Sequence[int] = range(PARTITIONS)) -> list[LogSummary]:
        """A summary of each tenant's log, by name. Raises LogUnavailable.

        A tenant whose events were all refused has one, too.
        """
        calls = [([tenants_key(partition)], [log_prefix(partition), usage_prefix(partition)]) for partition in partitions]
        summaries = []
        for reply in await self.connection.run_each("summaries", calls):
            for tenant, last, held, archived, *counts in reply:
                counted = Counts(*(int(count or 0) for count in counts))
                summaries.append(LogSummary(tenant.decode(), int(last), held, counted, int(archived or 0)))
        return sorted(summaries, key=lambda summary: summary.tenant)

    async def gaps(self, summary: LogSummary, *, limit: int = 20) -> list[tuple[int, int]]:
        """The first ranges of positions that a log misses. Raises LogUnavailable."""
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


def _find_archived(url: str, positions_of: dict[str, list[int]]) -> dict[tuple[str, int], Record]:
    """The archived records at positions of tenants. Raises LogUnavailable."""
    records: dict[tuple[str, int], Record] = {}
    try:
        archive = Archive(url)
        for tenant, positions in positions_of.items():
            with contextlib.suppress(DamagedArchive):  # Log.read names the damage
                records |= {(tenant, position): record for position, record in archive.find(tenant, positions).items()}
    except ArchiveUnavailable as error:
        raise LogUnavailable(f"the archive: {error}") from error
    return records


def records_of(entries: Sequence[Any]) -> list[Record]:
    """Records from raw stream entries.

    An entry whose id is no position is left out: Penstock did not write it.
    """
    return [record_of(entry) for entry in entries if entry[0].endswith(b"-0")]


def record_of(entry: Any) -> Record:
    """A record from a raw stream entry.

    It has version 0, and all fields, when Penstock did not write the entry.
    """
    entry_id, fields = entry
    position = int(entry_id.partition(b"-")[0])
    try:
        event_key, event, received_key, received_at_us, version_key, version = fields
        has_our_fields = event_key == b"event" and received_key == b"received_at_us" and version_key == b"version"
        has_numbers = (
            received_at_us.isdigit()
            and len(received_at_us) <= TIME_DIGITS
            and version.isdigit()
            and len(version) <= VERSION_DIGITS
        )
        if has_our_fields and has_numbers:
            return Record(position, int(received_at_us), int(version), event)
    except (TypeError, ValueError):
        pass  # other fields
    return Record(position, 0, 0, b" ".join(fields or ()))


def mean_bytes(records: Sequence[Record]) -> int:
    """About how much memory one of these records takes."""
    return sum(len(record.body) for record in records) // len(records) + ENTRY_OVERHEAD_BYTES


def _pages(records: list[Record]) -> list[list[Record]]:
    """Records in pages of limited size."""
    if sum([len(record.body) for record in records]) <= PAGE_BYTES:  # nearly always
        return [records] if records else []
    return list(batches(records, max_items=len(records), max_bytes=PAGE_BYTES, size_of=lambda record: len(record.body)))


def _before_gap(records: list[Record], after: int) -> list[Record]:
    """The records that follow `after` without a gap."""
    if not records or records[-1].position == after + len(records):
        return records
    return [record for i, record in enumerate(records, after + 1) if record.position == i]
