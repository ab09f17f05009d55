"""Restore an installation from a backup.

First, every digest of the backup is checked. Records that the server or the archive already has must be the same as in the
backup. Then the tables are restored, then the logs, with each record at its position. A restore that was interrupted continues
when it is started again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import msgspec

from projector.backup.create import deleted_tenants
from projector.backup.folder import Backup, BackupFolder, DamagedBackup, KeptLog
from projector.backup.incremental_copy import Comparison, copy_log, pages_of
from streams import Log, Record, keys_of
from streams.archive import Archive
from streams.errors import PenstockError
from streams.keys import deleted_key
from streams.runtime import Show, failpoint
from streams.tiering import HistoryDiffers, recover
from streams.transfer import FORMAT, FORMAT_VERSION, Header, LogImport


class TenantDeletedOnServer(PenstockError):
    """A tenant of the backup was deleted on the server:
    only a person may create it again."""

    def __init__(self, tenant: str) -> None:
        super().__init__(f"{tenant} was deleted on this server; `penstock api tenant create {tenant}` lets it begin again")


class WrittenMeanwhile(PenstockError):
    """Another process wrote to a log while it was restored."""

    def __init__(self, error: HistoryDiffers) -> None:
        super().__init__(f"{error}; another process writes to it")


class ExistingLog(msgspec.Struct, frozen=True):
    """The last positions of a log on the server and in the archive.

    A position is 0 if the log is not there.
    """

    last: int
    archived: int


class BackupRestore:
    """The restore of one backup.

    Call the methods in this order: check, compare, restore.
    """

    def __init__(self, log: Log, folder: BackupFolder, *, dedup_window_seconds: float, wait_seconds: float = 60.0) -> None:
        self._log = log
        self._folder = folder
        self._backup_archive = folder.archive()
        self._archive = Archive(log.archive_url) if log.archive_url else None
        self._window_seconds = dedup_window_seconds
        self._wait_seconds = wait_seconds
        self._tables = ""
        self._existing: dict[str, ExistingLog] = {}

    async def check(self, backup: Backup, show: Show) -> None:
        """Check every file of the backup. Raises DamagedBackup."""
        self._tables = await asyncio.to_thread(self._folder.tables, backup)
        checked = 0
        for kept in backup.tenants:
            for problem in await asyncio.to_thread(list, self._backup_archive.problems(kept.tenant)):
                raise DamagedBackup(problem)
            through = (await asyncio.to_thread(self._backup_archive.manifest, kept.tenant)).through
            if through < kept.last:
                raise DamagedBackup(f"{self._folder.path} misses the records {through + 1} to {kept.last} of {kept.tenant}")
            checked += kept.last
            show(checked, backup.records)

    async def compare(self, backup: Backup, show: Show) -> None:
        """Compare the backup with the logs that exist.

        Raises RecordsDiffer, TenantDeletedOnServer, Gap, DamagedArchive, ArchiveUnavailable, LogUnavailable.
        """
        last_positions = {summary.tenant: summary.last for summary in await self._log.summaries()}
        deleted = {entry.digest for entry in await deleted_tenants(self._log.connection)}
        compared = 0
        for kept in backup.tenants:
            if keys_of(kept.tenant).digest in deleted:
                raise TenantDeletedOnServer(kept.tenant)
            archived = (await asyncio.to_thread(self._archive.manifest, kept.tenant)).through if self._archive else 0
            existing = self._existing[kept.tenant] = ExistingLog(last_positions.get(kept.tenant, 0), archived)
            comparison = Comparison(kept.tenant, self._backup_archive)
            if existing.last:
                pages = self._log.read(kept.tenant, 0, through=min(existing.last, kept.last))
            elif self._archive:
                pages = pages_of(self._archive, kept.tenant, through=min(archived, kept.last))
            else:
                continue
            async for page in pages:
                await comparison.compare(page)
                compared += len(page)
                show(compared, backup.records)

    async def restore(self, backup: Backup, adopt_tables: Callable[[str], Awaitable[None]], show: Show) -> int:
        """Restore the backup; return how many records were written.

        Restores the tables, the logs, the counts and the list of deleted tenants. Raises LogDiffers, WrittenMeanwhile,
        ArchiveMoved, ArchiveUnavailable, LogUnavailable, LogFull, TenantDeleted, and the errors that `adopt_tables` raises.
        """
        await adopt_tables(self._tables)
        failpoint("after_tables_before_logs")
        restored = written = 0
        for kept in backup.tenants:
            try:
                written += await self._restore_log(kept)
            except HistoryDiffers as error:
                raise WrittenMeanwhile(error) from error
            await self._restore_usage(kept)
            restored += kept.last
            show(restored, backup.records)
            failpoint("between_restored_logs")
        await self._log.connection.call_each([("SADD", deleted_key(entry.partition), entry.digest) for entry in backup.deleted])
        return written

    async def _restore_log(self, kept: KeptLog) -> int:
        """Restore a log; return how many records were written.

        The records go into the archive; the server gets the newest record and the deduplication keys. If there is no archive, or
        if the server already has the beginning of the log, all records go to the server.
        """
        existing = self._existing[kept.tenant]
        if not kept.last:
            return 0
        if self._archive and not existing.last:
            missing = pages_of(self._backup_archive, kept.tenant, after=existing.archived, through=kept.last)
            _, added = await copy_log(missing, self._archive, kept.tenant)
            failpoint("between_archive_and_server")
            await recover(self._log, kept.tenant, dedup_window_seconds=self._window_seconds)
            return added
        if existing.last < kept.last:
            log_import = LogImport(self._log, dedup_window_seconds=self._window_seconds, wait_seconds=self._wait_seconds)
            await log_import.write(self._items(kept.tenant, existing.last, kept.last))
            return log_import.written
        if self._archive:  # an earlier restore may have been interrupted between the archive and the server
            await recover(self._log, kept.tenant, dedup_window_seconds=self._window_seconds)
        return 0

    def _items(self, tenant: str, after: int, through: int) -> Iterator[Header | Record]:
        """A header and records of the backup, as in an export."""
        yield Header(FORMAT, FORMAT_VERSION, tenant, after, through)
        for page in self._backup_archive.read(tenant, after):
            yield from (record for record in page if record.position <= through)

    async def _restore_usage(self, kept: KeptLog) -> None:
        """Restore the counts that the server does not have yet."""
        keys = keys_of(kept.tenant)
        counts = [("HSETNX", keys.usage, field, value) for field, value in kept.usage.items()]
        await self._log.connection.call_each([("SADD", keys.tenants, kept.tenant), *counts])
