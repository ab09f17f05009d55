"""Logs with contents that tests need."""

import contextlib
from collections.abc import Sequence

from projector.live.worker import Worker
from streams import Event, Log, Receipt, keys_of
from streams.errors import LogUnavailable
from tests.support.events import event, events
from tests.support.servers import Server


async def filled(log: Log, worker: Worker, count: int = 50) -> None:
    """Two tenants with events, a late duplicate and a late conflict each."""
    for tenant in ("acme", "beta"):
        await log.append(tenant, [*events(count), event(event_id="a", n=1)])
        await log.connection.call("DEL", *await log.connection.call("KEYS", f"*:dedup:{tenant}:*"))
        await log.append(tenant, [*events(3), event(event_id="a", n=2)])
    await worker.run_to_end()


async def spoiled(server: Server, log: Log, tenant: str = "acme", bad: int = 3) -> None:
    """A log of 5 events, some records that are no events, and a late conflict."""
    await log.append(tenant, [*events(4), event(event_id="a", n=1)])
    for i in range(bad):
        body = {"event": f"no event {i}", "received_at_us": 7, "version": 1}
        server.client.xadd(keys_of(tenant).log, body, id=f"{6 + i}-0")
    server.client.delete(*server.client.keys(f"*:dedup:{tenant}:*"))
    await log.append(tenant, [event(event_id="a", n=2)])


def position_of(receipt: Receipt) -> int:
    """The position of an event that is in the log."""
    assert receipt.position is not None
    return receipt.position


async def append_at_last(log: Log, tenant: str, batch: Sequence[Event]) -> None:
    """Append as a client does: again until there is an answer."""
    while True:
        with contextlib.suppress(LogUnavailable):
            await log.append(tenant, batch)
            return
