"""Recovery: a backup stood up again, on a server that has nothing of its logs, or the same.

First all is looked at: every digest of the backup, and what the server and the archive have of its logs, which must be the same
records. Then the tables, then the logs, each record at its position. Started again, it goes on with what is missing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import msgspec

from projector.backup.create import deleted_tenants
from projector.backup.folder import Backup, DamagedBackup, Folder, KeptLog
from projector.backup.incremental_copy import Comparison, carry, pages_of
from streams import Log, Record
from streams.archive import Archive
from streams.errors import PenstockError
from streams.keys import deleted_key, keys_of
from streams.runtime import Show, failpoint
from streams.tiering import recover
from streams.transfer import FORMAT, FORMAT_VERSION, Header, LogImport


class TenantDeletedThere(PenstockError):
    """A tenant of the backup was erased on the server: it must not come back by itself."""

    def __init__(self, tenant: str) -> None:
        super().__init__(f"{tenant} was erased on this server; let it begin again with `python -m api tenant create {tenant}`")


class Found(msgspec.Struct, frozen=True):
    """Up to which position the server and the archive have a log already, 0 for nothing."""

    last: int
    archived: int


class Recovery:
    """One backup that is stood up again. Its methods are called in this order."""

    def __init__(self, log: Log, folder: Folder, *, dedup_window_seconds: float, wait_seconds: float = 60.0) -> None:
        self._log = log
        self._folder = folder
        self._kept = folder.archive()
        self._archive = Archive(log.archive_url) if log.archive_url else None
        self._window_seconds = dedup_window_seconds
        self._wait_seconds = wait_seconds
        self._tables = ""
        self._found: dict[str, Found] = {}

    async def check(self, backup: Backup, show: Show) -> None:
        """Look at all of the backup. Raises DamagedBackup."""
        self._tables = await asyncio.to_thread(self._folder.tables, backup)
        done = 0
        for one in backup.tenants:
            for problem in await asyncio.to_thread(list, self._kept.problems(one.tenant)):
                raise DamagedBackup(problem)
            through = (await asyncio.to_thread(self._kept.manifest, one.tenant)).through
            if through < one.last:
                raise DamagedBackup(f"{self._folder.path} misses the records {through + 1} to {one.last} of {one.tenant}")
            done += one.last
            show(done, backup.records)

    async def compare(self, backup: Backup, show: Show) -> None:
        """Look at what is there of its logs. Raises RecordsDiffer, TenantDeletedThere, Gap, DamagedArchive, ArchiveUnavailable,
        LogUnavailable."""
        summaries = {summary.tenant: summary.last for summary in await self._log.summaries()}
        erased = {one.digest for one in await deleted_tenants(self._log.connection)}
        done = 0
        for one in backup.tenants:
            if keys_of(one.tenant).digest in erased:
                raise TenantDeletedThere(one.tenant)
            archived = (await asyncio.to_thread(self._archive.manifest, one.tenant)).through if self._archive else 0
            found = self._found[one.tenant] = Found(summaries.get(one.tenant, 0), archived)
            comparison = Comparison(one.tenant, self._kept)
            if found.last:
                pages = self._log.read(one.tenant, 0, through=min(found.last, one.last))
            elif self._archive:
                pages = pages_of(self._archive, one.tenant, through=min(archived, one.last))
            else:
                continue
            async for page in pages:
                await comparison.see(page)
                done += len(page)
                show(done, backup.records)

    async def put_back(self, backup: Backup, adopt_tables: Callable[[str], Awaitable[None]], show: Show) -> int:
        """The tables, the logs, what was counted and who was erased; how many records were put back. Raises what `adopt_tables`
        raises, LogDiffers, HistoryDiffers, ArchiveMoved, ArchiveUnavailable, LogUnavailable, LogFull."""
        await adopt_tables(self._tables)
        failpoint("after_tables_before_logs")
        done = written = 0
        for one in backup.tenants:
            written += await self._put_log_back(one)
            await self._put_usage_back(one)
            done += one.last
            show(done, backup.records)
            failpoint("between_restored_logs")
        await self._log.connection.call_each([("SADD", deleted_key(erased.partition), erased.digest) for erased in backup.erased])
        return written

    async def _put_log_back(self, one: KeptLog) -> int:
        """A log into the archive, with its newest record and the claims on the server; all on the server, where there is no
        archive or the server has the beginning."""
        found = self._found[one.tenant]
        if not one.last:
            return 0
        if self._archive and not found.last:
            missing = pages_of(self._kept, one.tenant, after=found.archived, through=one.last)
            _, added = await carry(missing, self._archive, one.tenant)
            failpoint("between_archive_and_server")
            await recover(self._log, one.tenant, dedup_window_seconds=self._window_seconds)
            return added
        if found.last < one.last:
            restore = LogImport(self._log, dedup_window_seconds=self._window_seconds, wait_seconds=self._wait_seconds)
            await restore.write(self._items(one.tenant, found.last, one.last))
            return restore.written
        if self._archive:
            await recover(self._log, one.tenant, dedup_window_seconds=self._window_seconds)  # which may have been interrupted
        return 0

    def _items(self, tenant: str, after: int, through: int) -> Iterator[Header | Record]:
        """The kept records behind a position, as an export has them."""
        yield Header(FORMAT, FORMAT_VERSION, tenant, after, through)
        for page in self._kept.read(tenant, after):
            yield from (record for record in page if record.position <= through)

    async def _put_usage_back(self, one: KeptLog) -> None:
        """What was counted; a count that has gone on is left as it is."""
        keys = keys_of(one.tenant)
        counts = [("HSETNX", keys.usage, field, value) for field, value in one.usage.items()]
        await self._log.connection.call_each([("SADD", keys.tenants, one.tenant), *counts])
