"""The throttle: appends of a tenant that was over its limit wait a moment.

They go out with the flushes of other tenants. Each flush is on disk before the next one begins, so a flood that had flushes of
its own would make all tenants wait.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

DELAY_SECONDS, DELAY_APPENDS = 0.0125, 16
LONGEST_DELAY_SECONDS = 0.05  # how long delayed appends wait for a flush of other tenants before they get their own

Append = TypeVar("Append")


class _Delay(msgspec.Struct, Generic[Append]):
    """A tenant's delayed appends, and when some of them may go out."""

    due: float
    timer: asyncio.TimerHandle
    events_per_second: int = 0
    appends: list[Append] = []


class Throttle(Generic[Append]):
    """The delayed appends of tenants that were over their limits.

    `release` is called with those that may go out.
    """

    def __init__(self, release: Callable[[str, list[Append]], None]) -> None:
        self._release = release
        self._delays: dict[str, _Delay[Append]] = {}

    @property
    def is_idle(self) -> bool:
        """Whether no tenant is delayed."""
        return not self._delays

    def delay(self, tenant: str) -> None:
        """Delay what the tenant appends, until nothing more of it waits."""
        if tenant not in self._delays:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(LONGEST_DELAY_SECONDS, self._release_alone, tenant)
            self._delays[tenant] = _Delay(loop.time() + DELAY_SECONDS, timer)

    def hold(self, tenant: str, append: Append, events_per_second: int) -> bool:
        """Keep an append if its tenant is delayed, and say whether it is."""
        delay = self._delays.get(tenant)
        if delay is None:
            return False
        delay.appends.append(append)
        delay.events_per_second = events_per_second
        return True

    def release_due(self) -> None:
        """Release what may go out with the flush that begins now."""
        for tenant, delay in list(self._delays.items()):
            self._release_some(tenant, delay)

    def _release_alone(self, tenant: str) -> None:
        """Release what no flush of other tenants took along."""
        delay = self._delays[tenant]
        delay.timer = asyncio.get_running_loop().call_later(LONGEST_DELAY_SECONDS, self._release_alone, tenant)
        self._release_some(tenant, delay)

    def _release_some(self, tenant: str, delay: _Delay[Append]) -> None:
        """Release some appends, if they are due.

        Those are twice as many as the limit accepts in the time since the last release.
        """
        now = asyncio.get_running_loop().time()
        if delay.due > now:
            return
        if not delay.appends:
            delay.timer.cancel()
            del self._delays[tenant]
            return
        rate, seconds = delay.events_per_second, now - delay.due + DELAY_SECONDS
        count = max(DELAY_APPENDS, math.ceil(2 * rate * seconds)) if rate else len(delay.appends)
        released, delay.appends = delay.appends[:count], delay.appends[count:]
        delay.due = now + DELAY_SECONDS
        self._release(tenant, released)
