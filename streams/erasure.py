"""Erasure: everything that the server has of a tenant goes, and nothing is taken for it until it is created again.

What stands for the tenant is a digest of its name. The append script looks for it only at the first event of a log.
"""

import contextlib

import msgspec
from redis.exceptions import ResponseError

from streams.keys import keys_of, leases_prefix, ready_prefix
from streams.wire import LogUnavailable, Wire

SCAN_KEYS = 1_000


class ErasedLog(msgspec.Struct, frozen=True):
    """What was removed: records of the log, and claims on events' names."""

    records: int
    claims: int


async def erase(wire: Wire, tenant: str) -> ErasedLog:
    """Remove a tenant's log, claims, counts and whatever names it. Interrupt it at any moment and start it again; other
    tenants wait for nothing. Raises LogUnavailable."""
    keys = keys_of(tenant)
    names = [keys.log, keys.tenants, keys.groups, keys.usage, keys.erased]
    arguments = [tenant, keys.digest, ready_prefix(keys.partition), leases_prefix(keys.partition)]
    [held] = await wire.run("erase", [(names, arguments)])
    if isinstance(held, Exception):
        raise LogUnavailable(str(held))
    erased = ErasedLog(held, await _forget_claims(wire, keys.seen))
    with contextlib.suppress(ResponseError):  # one is under way, or the server's owner does not allow it
        await wire.call("BGREWRITEAOF")  # the append-only file forgets, too
    return erased


async def _forget_claims(wire: Wire, prefix: str) -> int:
    """Remove every key that begins so. They are found by walking over all keys: a record that is gone tells no name."""
    cursor, removed = b"0", 0
    while True:
        cursor, found = await wire.call("SCAN", cursor, "MATCH", f"{prefix}*", "COUNT", SCAN_KEYS)
        if found:
            removed += await wire.call("UNLINK", *found)
        if cursor == b"0":
            return removed


async def create(wire: Wire, tenant: str) -> bool:
    """Let a tenant that was erased begin again; whether it was. Raises LogUnavailable."""
    keys = keys_of(tenant)
    return bool(await wire.call("SREM", keys.erased, keys.digest))
