"""The swap: a set becomes the live set, in one short transaction.

First it gets all that readers have seen.
"""

import asyncio
import time
from collections.abc import Sequence

from projector.projection import NO_CHECKPOINT, Checkpoint
from projector.rebuild.batches import Span, read
from projector.rebuild.replay import replay
from projector.store import SetName, Store
from streams import Log
from streams.errors import PenstockError
from streams.runtime import failpoint

BREATH_SECONDS = 0.004  # between transactions, for the projectors that wait for their turn to write
SWAP_SECONDS = 0.5
SWAP_TRIES = 50


class SwapTooSlow(PenstockError):
    """The last stretch did not fit the time that writers may be held up."""


async def swap(log: Log, store: Store, name: SetName, tenants: Sequence[str] | None, *, accept_loss: bool) -> None:
    """Read what the set lacks and swap, in one short transaction.

    When that takes too long, the transaction is rolled back and tried again with less to read.

    While the transaction is open no projector can move a checkpoint, so the set has all that readers have seen.
    """
    for attempt in range(SWAP_TRIES):
        spans = await _missing(log, store.checkpoints(name), _of(tenants, store.checkpoints()), accept_loss)
        async for chunk in replay(log, spans, store.staging_folder, accept_loss=accept_loss):
            store.write(name, chunk)
        try:
            with store.swapping(name) as swap:
                deadline = time.monotonic() + SWAP_SECONDS * (1 + attempt // 10)
                spans = await _missing(log, swap.checkpoints(), _of(tenants, swap.live_checkpoints()), accept_loss)
                async for batch in read(log, spans, accept_loss=accept_loss):
                    swap.apply(batch)
                    if time.monotonic() > deadline:
                        raise SwapTooSlow
                failpoint("inside_swap")
                if tenants is None:
                    swap.promote()
                else:
                    swap.replace_tenants(tenants)
            return
        except SwapTooSlow:
            await asyncio.sleep(BREATH_SECONDS)
    raise SwapTooSlow("the projectors write faster than this reads; stop some, or try again when less comes in")


def _of(tenants: Sequence[str] | None, checkpoints: dict[str, Checkpoint]) -> dict[str, Checkpoint]:
    """The checkpoints of all tenants, or of some."""
    return {tenant: at for tenant, at in checkpoints.items() if tenants is None or tenant in tenants}


async def _missing(log: Log, checkpoints: dict[str, Checkpoint], live: dict[str, Checkpoint], accept_loss: bool) -> list[Span]:
    """The spans that a set lacks of what readers see.

    No set with less may become the live set.
    """
    spans = []
    for tenant, goal in live.items():
        after = checkpoints.get(tenant, NO_CHECKPOINT).position
        if after < goal.position:
            through = min(goal.position, await log.last_position(tenant)) if accept_loss else goal.position
            spans.append(Span(tenant, after, through))
    return spans
