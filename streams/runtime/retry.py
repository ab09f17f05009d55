"""Patience: what may safely be done twice is tried again while the server is away or full, but not for ever."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from streams.append import LogBusy, LogFull
from streams.connection import LogUnavailable

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0

T = TypeVar("T")


async def retry(act: Callable[[], Awaitable[T]], *, seconds: float) -> T:
    """What `act` gives; tried again for that long. Raises its LogUnavailable, LogFull or LogBusy then, and any other at once."""
    deadline = time.monotonic() + seconds
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return await act()
        except (LogUnavailable, LogFull, LogBusy):
            if time.monotonic() + pause > deadline:
                raise
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
