"""Delete a tenant: everything that the server and the archive have of it.

Nothing is appended for the tenant until it is created again. A digest of its name is kept for this, and the append script looks
it up only at the first event of a log.
"""

import asyncio

import msgspec

from streams.archive import Archive
from streams.connection import Connection
from streams.keys import TenantKeys, keys_of, leases_prefix, ready_prefix

SCAN_KEYS = 1_000
LEASE_OWNER, LEASE_MS, PAUSE_SECONDS = "delete", 600_000, 0.1


class DeletedLog(msgspec.Struct, frozen=True):
    """How many records, dedup keys and files of the archive were removed."""

    records: int
    dedup_keys: int
    files: int


async def delete_log(connection: Connection, tenant: str, archive_url: str = "") -> DeletedLog:
    """Remove a tenant's log and every key that names the tenant.

    Also its dedup keys, counts and archive. May be interrupted at any moment and started again. Other tenants do not wait for
    it. Waits for a process that has the tenant's archive lease. Raises ArchiveUnavailable, LogFull, LogRefused, LogUnavailable.
    """
    keys = keys_of(tenant)
    if archive_url:
        await _acquire_lease(connection, keys)
    names = [keys.log, keys.tenants, keys.groups, keys.usage, keys.deleted, keys.suppressed, keys.rewrite]
    arguments = [tenant, keys.digest, ready_prefix(keys.partition), leases_prefix(keys.partition)]
    records = await connection.run("delete_tenant", names, arguments)
    files = 0
    if archive_url:
        archive = await asyncio.to_thread(Archive, archive_url)
        files = await asyncio.to_thread(archive.remove, tenant)
    dedup_keys = await _remove_dedup_keys(connection, keys.dedup)
    await connection.call("DEL", keys.archive_lease)
    # So that the append-only file holds nothing of the tenant. An error reply is harmless: a rewrite is under way or not allowed.
    await connection.pipeline([("BGREWRITEAOF",)])
    return DeletedLog(records, dedup_keys, files)


async def _acquire_lease(connection: Connection, keys: TenantKeys) -> None:
    """Acquire the tenant's archive lease.

    A process that has it gives it up, or the lease ends.
    """
    names = [keys.log, keys.groups, keys.archive_lease]
    while not await connection.run("archive_lease", names, [LEASE_OWNER, LEASE_MS]):  # noqa: ASYNC110
        await asyncio.sleep(PAUSE_SECONDS)


async def _remove_dedup_keys(connection: Connection, prefix: str) -> int:
    """Remove every key with a prefix.

    Only a walk over all keys finds them: the records that name them are removed.
    """
    cursor, removed = b"0", 0
    while True:
        cursor, names = await connection.call("SCAN", cursor, "MATCH", f"{prefix}*", "COUNT", SCAN_KEYS)
        if names:
            removed += await connection.call("UNLINK", *names)
        if cursor == b"0":
            return removed


async def readmit_tenant(connection: Connection, tenant: str) -> bool:
    """Let a deleted tenant begin again; return whether it was deleted.

    Raises LogUnavailable.
    """
    keys = keys_of(tenant)
    return bool(await connection.call("SREM", keys.deleted, keys.digest))
