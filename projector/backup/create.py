"""Make a backup: copy the tables, then every log, into a folder.

Penstock keeps running meanwhile. The tables are copied first, so every copied log reaches at least as far as the tables. After a
restore, projectors apply the records that the tables lack.

If the folder already holds a backup, its records are compared with the logs, one by one, and new records are added. The
comparison is needed because records that were erased since the last backup must not stay in it.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version

import msgspec

from projector.backup.folder import FORMAT, FORMAT_VERSION, Backup, BackupFolder, DeletedTenant, KeptLog, digest_of_file
from projector.backup.incremental_copy import RecordsDiffer, copy_log
from streams import Connection, Log, LogSummary, keys_of
from streams.errors import Gap, PenstockError
from streams.keys import PARTITIONS, deleted_key
from streams.runtime import Show, failpoint

NOT_KEPT = "archived"  # a field of the usage that says where records are: a restore puts them elsewhere


class LogLost(PenstockError):
    """The server's log ends before the log in the old backup."""

    def __init__(self, tenant: str, last: int, kept: int) -> None:
        log = f"the log of {tenant} ends at position {last}" if last else f"there is no log of {tenant}"
        super().__init__(f"{log}, and the backup holds it up to {kept}: back up into another folder, or restore this backup")


class LogRewritten(PenstockError):
    """A log has other records than the old backup."""

    def __init__(self, error: RecordsDiffer) -> None:
        super().__init__(f"{error}: it was rewritten, and the old records must not live on. Back up into another folder")


class Created(msgspec.Struct, frozen=True):
    """A complete backup, and how many of its records are new."""

    backup: Backup
    added: int


async def create_backup(log: Log, folder: BackupFolder, copy_tables: Callable[[str], Awaitable[None]], show: Show) -> Created:
    """Make a backup in a folder that is locked.

    `copy_tables` copies the tables to a path where no file exists. A backup may be interrupted at any moment and started again.

    Raises LogRewritten, LogLost, Gap, LogUnavailable, DamagedArchive, ArchiveUnavailable, OSError, and the errors that
    `copy_tables` raises. After an error, the folder still holds the old backup, if there was one.
    """
    while True:
        deleted = await deleted_tenants(log.connection)
        await copy_tables(folder.next_tables)
        failpoint("after_tables_before_log")
        try:
            tenants, added = await _copy_logs(log, folder, deleted, show)
        except (RecordsDiffer, LogLost, Gap) as error:
            if await deleted_tenants(log.connection) == deleted:
                if isinstance(error, RecordsDiffer):
                    raise LogRewritten(error) from error
                raise
        else:
            if await deleted_tenants(log.connection) == deleted:
                break
        os.unlink(folder.next_tables)  # a tenant was deleted meanwhile, and these tables may still have its rows
    size_bytes, digest = await asyncio.to_thread(digest_of_file, folder.next_tables)
    made_at = datetime.now(UTC).isoformat(timespec="seconds")
    backup = Backup(FORMAT, FORMAT_VERSION, version("penstock"), made_at, size_bytes, digest, tenants, deleted)
    failpoint("before_backup_is_complete")
    folder.finish(backup)
    for tenant in _deleted_among(folder.tenants(), deleted):
        await asyncio.to_thread(folder.archive().remove, tenant)
    return Created(backup, added)


async def _copy_logs(log: Log, folder: BackupFolder, deleted: Sequence[DeletedTenant], show: Show) -> tuple[list[KeptLog], int]:
    """Copy every log into the folder.

    Returns the logs that the folder then holds, and how many records were added.
    """
    summaries = await log.summaries()
    usages = await _usages(log.connection, summaries)
    archive = folder.archive()
    tenants_with_log = {summary.tenant for summary in summaries}
    for tenant in sorted(set(folder.tenants()) - tenants_with_log - set(_deleted_among(folder.tenants(), deleted))):
        if kept_through := (await asyncio.to_thread(archive.manifest, tenant)).through:
            raise LogLost(tenant, 0, kept_through)
    total = sum(summary.last for summary in summaries)
    copied = added = 0

    def count(records: int) -> None:
        nonlocal copied
        copied += records
        show(copied, total)

    for summary in summaries:
        await asyncio.to_thread(archive.tidy, summary.tenant, age_seconds=0)
        kept_through = (await asyncio.to_thread(archive.manifest, summary.tenant)).through
        if summary.last < kept_through:
            raise LogLost(summary.tenant, summary.last, kept_through)
        pages = log.read(summary.tenant, 0, through=summary.last)
        reached, new_records = await copy_log(pages, archive, summary.tenant, show=count)
        if reached < summary.last:
            raise Gap(summary.tenant, reached + 1, summary.last)
        added += new_records
        failpoint("between_logs")
    return [KeptLog(summary.tenant, summary.last, usages[summary.tenant]) for summary in summaries], added


def _deleted_among(tenants: Sequence[str], deleted: Sequence[DeletedTenant]) -> list[str]:
    digests = {entry.digest for entry in deleted}
    return [tenant for tenant in tenants if keys_of(tenant).digest in digests]


async def _usages(connection: Connection, summaries: Sequence[LogSummary]) -> dict[str, dict[str, str]]:
    """The counts of each tenant, and what is left of its limits."""
    replies = await connection.call_each([("HGETALL", keys_of(summary.tenant).usage) for summary in summaries])
    usages = {}
    for summary, reply in zip(summaries, replies, strict=True):
        names_and_values = [text.decode() for text in reply]
        fields = zip(names_and_values[::2], names_and_values[1::2], strict=True)
        usages[summary.tenant] = {field: value for field, value in fields if field != NOT_KEPT}
    return usages


async def deleted_tenants(connection: Connection) -> list[DeletedTenant]:
    """Every tenant that was deleted. Raises LogUnavailable."""
    deleted = []
    for partition, reply in enumerate(await connection.call_each([("SMEMBERS", deleted_key(p)) for p in range(PARTITIONS)])):
        deleted += [DeletedTenant(partition, digest.decode()) for digest in sorted(reply)]
    return deleted
