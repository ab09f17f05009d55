"""Retry: call a function again while it raises Retryable."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from streams.errors import Retryable

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0

T = TypeVar("T")


async def retry(act: Callable[[], Awaitable[T]], *, seconds: float) -> T:
    """Return what `act` returns; call it again after a Retryable.

    After `seconds` the last Retryable is raised, and any other error at once.
    """
    deadline = time.monotonic() + seconds
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return await act()
        except Retryable:
            if time.monotonic() + pause > deadline:
                raise
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
