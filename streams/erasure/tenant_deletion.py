"""Erasure: everything that the server has of a tenant goes, and nothing is taken for it until it is created again.

What stands for the tenant is a digest of its name. The append script looks for it only at the first event of a log.
"""

import asyncio
import contextlib

import msgspec
from redis.exceptions import ResponseError

from streams.connection import Connection
from streams.errors import LogUnavailable
from streams.keys import keys_of, leases_prefix, ready_prefix

SCAN_KEYS = 1_000
LEASE_OWNER, LEASE_MS, PAUSE_SECONDS = "erasure", 600_000, 0.1


class DeletedLog(msgspec.Struct, frozen=True):
    """What was removed: records that the server held, claims on events' names, files of the archive."""

    records: int
    dedup_keys: int
    files: int


async def delete_tenant(connection: Connection, tenant: str, archive_url: str = "") -> DeletedLog:
    """Remove a tenant's log, claims, counts, archive and whatever names it. Interrupt it at any moment and start it again;
    other tenants wait for nothing. Waits for an archiver that has the tenant. Raises LogUnavailable, ArchiveUnavailable."""
    keys = keys_of(tenant)
    if archive_url:
        await _take(connection, keys.archiving)
    names = [keys.log, keys.tenants, keys.groups, keys.usage, keys.deleted, keys.suppressed, keys.copy]
    arguments = [tenant, keys.digest, ready_prefix(keys.partition), leases_prefix(keys.partition)]
    [held] = await connection.run("delete_tenant", [(names, arguments)])
    if isinstance(held, Exception):
        raise LogUnavailable(str(held))
    files = await asyncio.to_thread(_remove_archive, archive_url, tenant) if archive_url else 0
    erased = DeletedLog(held, await _remove_dedup_keys(connection, keys.dedup), files)
    await connection.call("DEL", keys.archiving)
    with contextlib.suppress(ResponseError):  # one is under way, or the server's owner does not allow it
        await connection.call("BGREWRITEAOF")  # the append-only file forgets, too
    return erased


async def _take(connection: Connection, archiving: str) -> None:
    """Keep archivers away: who has the tenant now gives it back, or its lease ends."""
    while await connection.call("SET", archiving, LEASE_OWNER, "NX", "PX", LEASE_MS) is None:
        if await connection.call("GET", archiving) == LEASE_OWNER.encode():
            return
        await asyncio.sleep(PAUSE_SECONDS)


def _remove_archive(url: str, tenant: str) -> int:
    from streams.archive.store import Archive  # not above: pyarrow takes half a second to load

    return Archive(url).remove(tenant)


async def _remove_dedup_keys(connection: Connection, prefix: str) -> int:
    """Remove every key that begins so. They are found by walking over all keys: a record that is gone tells no name."""
    cursor, removed = b"0", 0
    while True:
        cursor, found = await connection.call("SCAN", cursor, "MATCH", f"{prefix}*", "COUNT", SCAN_KEYS)
        if found:
            removed += await connection.call("UNLINK", *found)
        if cursor == b"0":
            return removed


async def create(connection: Connection, tenant: str) -> bool:
    """Let a tenant that was erased begin again; whether it was. Raises LogUnavailable."""
    keys = keys_of(tenant)
    return bool(await connection.call("SREM", keys.deleted, keys.digest))
