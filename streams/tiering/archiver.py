"""The archiver: moves cold records from the server to the archive.

A record is cold when every group has acknowledged it and it is older than HOT_SECONDS or not among the newest HOT_RECORDS. The
newest record of a log always stays. A record leaves the server only after the archive has given it back, so after an
interruption it is on the server or in the archive; a record in both is the same record.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence

import msgspec

from streams.archive import SEGMENT_BYTES, SEGMENT_RECORDS, Archive
from streams.batches import batches
from streams.errors import ArchiveMoved, DamagedArchive, Gap, LogRefused, PenstockError, Retryable
from streams.event import Record
from streams.keys import keys_of
from streams.log import Log
from streams.runtime.failpoints import failpoint

logger = logging.getLogger("streams")

LEASE_SECONDS = 60.0
TRIM_RECORDS = 5_000  # a script call
WORTH_RECORDS = 1_000  # fewer cold records wait for more, for WORTH_SECONDS at most
WORTH_SECONDS = 3_600.0
PAUSE_SECONDS = 30.0
TRIMMED, DIFFERS = 1, -2  # answers of trim.lua


class ArchiveDiffers(PenstockError):
    """The archive holds another history than the log."""

    def __init__(self, tenant: str, position: int) -> None:
        super().__init__(f"the archive of {tenant} holds other records than its log at positions up to {position}")


class Archived(msgspec.Struct):
    """How many records were archived, and how many left the server.

    `stuck` says why tenants could not be archived.
    """

    records: int = 0
    trimmed: int = 0
    stuck: dict[str, str] = {}


class Archiver:
    """A process that archives. Several may run: a tenant has one at a time."""

    def __init__(self, log: Log, archive: Archive, *, lease_owner: str, hot_seconds: float, hot_records: int) -> None:
        self._log = log
        self._archive = archive
        self._lease_owner = lease_owner
        self._hot_us = int(hot_seconds * 1_000_000)
        self._hot_records = hot_records

    async def run(self, stop: asyncio.Event) -> None:
        """Archive until `stop` is set."""
        logged: dict[str, str] = {}
        while not stop.is_set():
            try:
                archived = await self.run_once(eager=False, stop=stop)
                for tenant, reason in archived.stuck.items():
                    if logged.get(tenant) != reason:
                        logger.error("%s: not archived: %s", tenant, reason)
                logged = archived.stuck
            except (Retryable, LogRefused) as error:
                logger.warning("waiting: %s", error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), PAUSE_SECONDS)

    async def run_once(self, *, eager: bool = True, stop: asyncio.Event | None = None) -> Archived:
        """Archive the cold records of every tenant.

        Without `eager`, only where they are worth a segment. Raises ArchiveUnavailable, LogFull, LogRefused, LogUnavailable.
        """
        archived = Archived()
        for summary in await self._log.summaries():
            if stop is not None and stop.is_set():
                break
            try:
                await self._archive_tenant(summary.tenant, eager, archived)
            except (ArchiveMoved, ArchiveDiffers, DamagedArchive, Gap) as error:
                archived.stuck[summary.tenant] = str(error)
        return archived

    async def _archive_tenant(self, tenant: str, eager: bool, archived: Archived) -> None:
        keys, connection = keys_of(tenant), self._log.connection
        lease = ([keys.log, keys.groups, keys.archive_lease], [self._lease_owner, int(LEASE_SECONDS * 1000)])
        while progress := await connection.run("archive_lease", *lease):
            acknowledged, last, oldest = map(int, progress)
            manifest = await asyncio.to_thread(self._archive.manifest, tenant)
            if last and oldest <= manifest.through:
                archived.trimmed += await self._trim(tenant, oldest - 1)
            through = min(acknowledged, last - 1)
            records = await self._cold_records(tenant, manifest.through, through, last) if manifest.through < through else []
            if not records or not (eager or _are_worth_a_segment(records, time.time_ns() // 1_000 - self._hot_us)):
                await connection.call("DEL", keys.archive_lease)
                return
            await asyncio.to_thread(self._archive.tidy, tenant)
            await asyncio.to_thread(self._archive.add, tenant, records)
            archived.records += len(records)
            failpoint("after_archive_before_trim")

    async def _cold_records(self, tenant: str, after: int, through: int, last: int) -> list[Record]:
        """The cold records after a position, as many as one segment takes."""
        cold_before_us = time.time_ns() // 1_000 - self._hot_us
        records: list[Record] = []
        body_bytes = 0
        async for page in self._log.read(tenant, after, through=through):
            for record in page:
                body_bytes += len(record.body)
                is_cold = record.position <= last - self._hot_records or record.received_at_us <= cold_before_us
                if not is_cold or len(records) == SEGMENT_RECORDS or (records and body_bytes > SEGMENT_BYTES):
                    return records
                records.append(record)
        return records

    async def _trim(self, tenant: str, after: int) -> int:
        """Remove archived records after a position from the server.

        Returns how many. Raises ArchiveDiffers.
        """
        keys = keys_of(tenant)
        names = [keys.log, keys.usage, keys.archive_lease]
        trimmed = 0
        pages = self._archive.read(tenant, after)
        while (page := await asyncio.to_thread(next, pages, None)) is not None:
            for part in batches(page, max_items=TRIM_RECORDS, max_bytes=SEGMENT_BYTES, size_of=lambda record: len(record.body)):
                first, through = part[0], part[-1]
                arguments = [self._lease_owner, first.position - 1, first.body, through.position, through.body]
                answer = await self._log.connection.run("trim", names, arguments)
                if answer == DIFFERS:
                    raise ArchiveDiffers(tenant, through.position)
                if answer != TRIMMED:
                    return trimmed
                trimmed += len(part)
                failpoint("between_trims")
        return trimmed


def _are_worth_a_segment(records: Sequence[Record], cold_before_us: int) -> bool:
    """Whether records are many, or have been cold for long."""
    return len(records) >= WORTH_RECORDS or records[0].received_at_us <= cold_before_us - int(WORTH_SECONDS * 1_000_000)
