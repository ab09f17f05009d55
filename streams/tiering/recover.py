"""Reclaim: a server gets back from the archive what it needs to go on: where each log ends, and who claimed which name, and
which names are kept out.

After a server was lost and only the archive is left, or when `seen` keys were lost. Records stay in the archive, where readers
find them.
"""

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from streams.append import CALL_LIMIT_EVENTS, refusal_of
from streams.archive.store import Archive
from streams.erasure.suppression import suppress_erased
from streams.errors import PenstockError
from streams.event import Record
from streams.keys import READY_CHANNEL, keys_of, ready_prefix
from streams.log import Log
from streams.transfer.import_log import dedup_keys_of


class HistoryDiffers(PenstockError):
    """The server holds another history of the log than the archive."""

    def __init__(self, tenant: str, last: int, through: int) -> None:
        super().__init__(f"the log of {tenant} ends at position {last} on the server, its archive at {through}: they differ")


class Recovered(msgspec.Struct, frozen=True):
    """What was done for a tenant: where its log ends, and how many records within the window were claimed again."""

    tenant: str
    last: int
    dedup_keys: int


async def recover(log: Log, tenant: str, *, dedup_window_seconds: float) -> Recovered:
    """See this file. It may be interrupted and begun again. Raises HistoryDiffers, TenantDeleted, Gap, LogFull,
    LogUnavailable."""
    through = Archive(log.archive_url).manifest(tenant).through
    newest = await log.find(tenant, through) if through else None
    last = await _run(log, tenant, newest, [], []) if newest else await log.last_position(tenant)
    if last < through:
        raise HistoryDiffers(tenant, last, through)
    window_us, now_us = int(dedup_window_seconds * 1_000_000), time.time_ns() // 1_000
    restored = 0
    async for page in log.read(tenant, 0, through=last):
        await suppress_erased(log.connection, tenant, page)
        for begin in range(0, len(page), CALL_LIMIT_EVENTS):
            dedup_keys, values = dedup_keys_of(tenant, page[begin : begin + CALL_LIMIT_EVENTS], window_us, now_us)
            if dedup_keys:
                await _run(log, tenant, newest or page[0], dedup_keys, values)
                restored += len(dedup_keys)
    return Recovered(tenant, last, restored)


async def _run(log: Log, tenant: str, newest: Record, dedup_keys: Sequence[str], values: Sequence[Any]) -> int:
    keys = keys_of(tenant)
    names = [keys.log, keys.tenants, keys.groups, keys.usage, keys.deleted, *dedup_keys]
    place = [tenant, keys.digest, ready_prefix(keys.partition), keys.partition, READY_CHANNEL]
    arguments = [*place, newest.position, newest.received_at_us, newest.version, newest.body, *values]
    [reply] = await log.connection.run("recover", [(names, arguments)])
    if isinstance(reply, Exception):
        raise refusal_of(reply)
    return int(reply)
