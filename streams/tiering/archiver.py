"""The archiver: moves the cold part of each log from the server's memory to the archive, and never the other way round.

Cold is what every group has acknowledged and is older than HOT_SECONDS or beyond the newest HOT_RECORDS; never the newest record,
which a log is known by. A record leaves the server only when the archive has given it back: whatever is interrupted, it is in
one of both, and what is in both is one record.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from streams.archive.manifest import SEGMENT_BYTES, SEGMENT_RECORDS
from streams.archive.segments import groups
from streams.archive.store import Archive
from streams.errors import ArchiveMoved, ArchiveUnavailable, DamagedArchive, Gap, LogUnavailable, PenstockError
from streams.event import Record
from streams.keys import keys_of
from streams.log import Log
from streams.runtime.failpoints import failpoint

log_of_archiver = logging.getLogger("streams")

LEASE_SECONDS = 60.0
TRIM_RECORDS = 5_000  # a call
FEW_RECORDS = 1_000  # fewer wait for more, an hour at most
WAIT_SECONDS = 3_600.0
PAUSE_SECONDS = 30.0


class ArchiveDiffers(PenstockError):
    """The archive holds another history than the log."""

    def __init__(self, tenant: str, position: int) -> None:
        super().__init__(f"the archive of {tenant} holds other records than its log at positions up to {position}")


class Archived(msgspec.Struct):
    """What was done: how many records were archived, how many left the server, and the tenants that cannot go on, with why."""

    records: int = 0
    trimmed: int = 0
    stuck: dict[str, str] = {}


class Archiver:
    """One process that archives; of several, each tenant has one at a time."""

    def __init__(self, log: Log, archive: Archive, *, lease_owner: str, hot_seconds: float, hot_records: int) -> None:
        self._log = log
        self._archive = archive
        self._lease_owner = lease_owner
        self._hot_us = int(hot_seconds * 1_000_000)
        self._hot_records = hot_records

    async def run(self, stop: asyncio.Event) -> None:
        """Archive until told to stop."""
        said: dict[str, str] = {}
        while not stop.is_set():
            try:
                done = await self.run_once(eager=False, stop=stop)
                for tenant, why in done.stuck.items():
                    if said.get(tenant) != why:
                        log_of_archiver.error("%s: not archived: %s", tenant, why)
                said = done.stuck
            except (LogUnavailable, ArchiveUnavailable) as error:
                log_of_archiver.warning("waiting: %s", error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), PAUSE_SECONDS)

    async def run_once(self, *, eager: bool = True, stop: asyncio.Event | None = None) -> Archived:
        """Archive what is cold of every tenant; not `eager`, only where it is worth a segment.

        Raises LogUnavailable, ArchiveUnavailable.
        """
        done = Archived()
        for summary in await self._log.summaries():
            if stop is not None and stop.is_set():
                break
            try:
                await self._archive_tenant(summary.tenant, eager, done)
            except (ArchiveMoved, ArchiveDiffers, DamagedArchive, Gap) as error:
                done.stuck[summary.tenant] = str(error)
        return done

    async def _archive_tenant(self, tenant: str, eager: bool, done: Archived) -> None:
        keys = keys_of(tenant)
        names = [keys.log, keys.groups, keys.archiving]
        while taken := await self._run("archive_lease", names, [self._lease_owner, int(LEASE_SECONDS * 1000)]):
            acknowledged, last, oldest = map(int, taken)
            manifest = await asyncio.to_thread(self._archive.manifest, tenant)
            if last and oldest <= manifest.through:
                done.trimmed += await self._trim(tenant, oldest - 1)
            cold = min(acknowledged, last - 1)
            records = await self._cold(tenant, manifest.through, cold, last) if manifest.through < cold else []
            if not records or not (eager or _are_enough(records, time.time_ns() // 1_000 - self._hot_us)):
                await self._log.connection.call("DEL", keys.archiving)
                return
            await asyncio.to_thread(self._archive.tidy, tenant)
            await asyncio.to_thread(self._archive.add, tenant, records)
            done.records += len(records)
            failpoint("after_archive_before_trim")

    async def _cold(self, tenant: str, after: int, through: int, last: int) -> list[Record]:
        """The records behind a position that are cold, as many as a segment may have."""
        before_us = time.time_ns() // 1_000 - self._hot_us
        records: list[Record] = []
        size = 0
        async for page in self._log.read(tenant, after, through=through):
            for record in page:
                size += len(record.body)
                is_cold = record.position <= last - self._hot_records or record.received_at_us <= before_us
                if not is_cold or len(records) == SEGMENT_RECORDS or (records and size > SEGMENT_BYTES):
                    return records
                records.append(record)
        return records

    async def _trim(self, tenant: str, after: int) -> int:
        """Remove from the server what the archive has behind a position; how many. Raises ArchiveDiffers."""
        keys = keys_of(tenant)
        names = [keys.log, keys.usage, keys.archiving]
        trimmed = 0
        pages = self._archive.read(tenant, after)
        while (page := await asyncio.to_thread(next, pages, None)) is not None:
            for part in groups(page, TRIM_RECORDS, SEGMENT_BYTES):
                first, through = part[0], part[-1]
                arguments = [self._lease_owner, first.position - 1, first.body, through.position, through.body]
                answer = await self._run("trim", names, arguments)
                if answer == -2:
                    raise ArchiveDiffers(tenant, through.position)
                if answer != 1:
                    return trimmed
                trimmed += len(part)
                failpoint("between_trims")
        return trimmed

    async def _run(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        [reply] = await self._log.connection.run(script, [(keys, arguments)])
        if isinstance(reply, Exception):
            raise LogUnavailable(str(reply))
        return reply


def _are_enough(records: Sequence[Record], cold_before_us: int) -> bool:
    """Whether records are worth a segment: many, or such that have waited for more long enough."""
    patience_us = int(WAIT_SECONDS * 1_000_000)
    return len(records) >= FEW_RECORDS or records[0].received_at_us <= cold_before_us - patience_us
