"""Backup: the tables, then every log, copied into a folder while everything runs.

The tables come first: so no log is behind them, and what the tables lack they read again. A folder that holds a backup is gone
on with: what it has of each log is compared with the log, record by record, and what is new is added. A history that was
rewritten, by an erasure say, must not live on in it.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version

import msgspec

from projector.backup.folder import FORMAT, FORMAT_VERSION, Backup, DeletedTenant, Folder, KeptLog, digest_of_file
from projector.backup.incremental_copy import RecordsDiffer, carry
from streams import Connection, Log, LogSummary
from streams.errors import Gap, PenstockError
from streams.keys import PARTITIONS, deleted_key, keys_of
from streams.runtime import Show, failpoint

NOT_KEPT = "archived"  # of a usage: where the records are is another thing after a restore


class LogLost(PenstockError):
    """The server has less of a log than the backup that is to be gone on with."""

    def __init__(self, tenant: str, last: int, kept: int) -> None:
        has = f"the log of {tenant} ends at position {last}" if last else f"there is no log of {tenant}"
        super().__init__(f"{has}, and the backup holds it up to {kept}: go on with another folder, or restore this one")


class Made(msgspec.Struct, frozen=True):
    """A backup that was made, and how many records were new in it."""

    backup: Backup
    added: int


async def make(log: Log, folder: Folder, copy_tables: Callable[[str], Awaitable[None]], show: Show) -> Made:
    """Make a backup in a folder that nobody else makes one in. `copy_tables` copies them to a file that is not there.

    Interrupt it at any moment and start it again. Raises RecordsDiffer, LogLost, Gap, LogUnavailable, DamagedArchive,
    ArchiveUnavailable, OSError, and what `copy_tables` raises: then the folder is the backup that it was before, or none.
    """
    while True:
        erased = await deleted_tenants(log.connection)
        await copy_tables(folder.next_tables)
        failpoint("after_tables_before_log")
        try:
            tenants, added = await _copy_logs(log, folder, erased, show)
        except (RecordsDiffer, LogLost, Gap):
            if await deleted_tenants(log.connection) == erased:
                raise
        else:
            if await deleted_tenants(log.connection) == erased:
                break
        os.unlink(folder.next_tables)  # a tenant was erased meanwhile, and these tables may have it
    size, digest = await asyncio.to_thread(digest_of_file, folder.next_tables)
    made_at = datetime.now(UTC).isoformat(timespec="seconds")
    backup = Backup(FORMAT, FORMAT_VERSION, version("penstock"), made_at, size, digest, tenants, erased)
    failpoint("before_backup_is_one")
    folder.finish(backup)
    for tenant in _of_deleted(folder.tenants(), erased):
        await asyncio.to_thread(folder.archive().remove, tenant)
    return Made(backup, added)


async def _copy_logs(log: Log, folder: Folder, erased: Sequence[DeletedTenant], show: Show) -> tuple[list[KeptLog], int]:
    """Every log into the folder; what it has then, and how many records were added."""
    summaries = await log.summaries()
    usages = await _usages(log.connection, summaries)
    archive = folder.archive()
    there = {summary.tenant for summary in summaries}
    for tenant in sorted(set(folder.tenants()) - there - set(_of_deleted(folder.tenants(), erased))):
        if kept := (await asyncio.to_thread(archive.manifest, tenant)).through:
            raise LogLost(tenant, 0, kept)
    total = sum(summary.last for summary in summaries)
    done = added = 0

    def count(records: int) -> None:
        nonlocal done
        done += records
        show(done, total)

    for summary in summaries:
        await asyncio.to_thread(archive.tidy, summary.tenant, age_seconds=0)
        kept = (await asyncio.to_thread(archive.manifest, summary.tenant)).through
        if summary.last < kept:
            raise LogLost(summary.tenant, summary.last, kept)
        reached, new = await carry(log.read(summary.tenant, 0, through=summary.last), archive, summary.tenant, show=count)
        if reached < summary.last:
            raise Gap(summary.tenant, reached + 1, summary.last)
        added += new
        failpoint("between_logs")
    return [KeptLog(summary.tenant, summary.last, usages[summary.tenant]) for summary in summaries], added


def _of_deleted(tenants: Sequence[str], erased: Sequence[DeletedTenant]) -> list[str]:
    digests = {one.digest for one in erased}
    return [tenant for tenant in tenants if keys_of(tenant).digest in digests]


async def _usages(connection: Connection, summaries: Sequence[LogSummary]) -> dict[str, dict[str, str]]:
    """What the door counted of each tenant, and what is left of its limits."""
    replies = await connection.call_each([("HGETALL", keys_of(summary.tenant).usage) for summary in summaries])
    found = {}
    for summary, reply in zip(summaries, replies, strict=True):
        words = [word.decode() for word in reply]
        found[summary.tenant] = {field: value for field, value in zip(words[::2], words[1::2], strict=True) if field != NOT_KEPT}
    return found


async def deleted_tenants(connection: Connection) -> list[DeletedTenant]:
    """Every tenant that was erased. Raises LogUnavailable."""
    found = []
    for partition, reply in enumerate(await connection.call_each([("SMEMBERS", deleted_key(p)) for p in range(PARTITIONS)])):
        found += [DeletedTenant(partition, digest.decode()) for digest in sorted(reply)]
    return found
