"""Recover a server from the archive.

It gets back where each log ends, the dedup keys, and the suppressed identities. For a server that was lost when only the
archive is left, or that lost its dedup keys. Records stay in the archive, where readers find them.
"""

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from streams.append import CALL_LIMIT_EVENTS
from streams.archive import Archive
from streams.dedup_keys import dedup_keys_of
from streams.erasure.suppression import suppress_erased
from streams.errors import PenstockError
from streams.event import Record
from streams.keys import keys_of, queue_arguments
from streams.log import Log


class HistoryDiffers(PenstockError):
    """The server holds another history of the log than the archive."""

    def __init__(self, tenant: str, last: int, through: int) -> None:
        super().__init__(f"the log of {tenant} ends at position {last} on the server, its archive at {through}: they differ")


class Recovered(msgspec.Struct, frozen=True):
    """A log's last position, and how many dedup keys were written."""

    tenant: str
    last: int
    dedup_keys: int


async def recover(log: Log, tenant: str, *, dedup_window_seconds: float) -> Recovered:
    """Recover a tenant's log. May be interrupted and started again.

    Raises HistoryDiffers, TenantDeleted, Gap, LogFull, LogRefused, LogUnavailable, ArchiveUnavailable, DamagedArchive.
    """
    through = Archive(log.archive_url).manifest(tenant).through
    newest = await log.find(tenant, through) if through else None
    last = await _run_script(log, tenant, newest, [], []) if newest else await log.last_position(tenant)
    if last < through:
        raise HistoryDiffers(tenant, last, through)
    window_us, now_us = int(dedup_window_seconds * 1_000_000), time.time_ns() // 1_000
    written = 0
    async for page in log.read(tenant, 0, through=last):
        await suppress_erased(log.connection, tenant, page)
        for start in range(0, len(page), CALL_LIMIT_EVENTS):
            dedup_keys, arguments = dedup_keys_of(tenant, page[start : start + CALL_LIMIT_EVENTS], window_us, now_us)
            if dedup_keys:
                await _run_script(log, tenant, newest or page[0], dedup_keys, arguments)
                written += len(dedup_keys)
    return Recovered(tenant, last, written)


async def _run_script(log: Log, tenant: str, newest: Record, dedup_keys: Sequence[str], dedup_arguments: Sequence[Any]) -> int:
    """Run recover.lua; return the log's last position."""
    keys = keys_of(tenant)
    names = [keys.log, keys.tenants, keys.groups, keys.usage, keys.deleted, *dedup_keys]
    of_newest = [newest.position, newest.received_at_us, newest.version, newest.body]
    return int(await log.connection.run("recover", names, [*queue_arguments(tenant), *of_newest, *dedup_arguments]))
