"""NewTenants: in open mode anybody may name any tenant, so how many may begin in a second is bounded.

A tenant costs the server keys for ever, and every process a place in what it remembers.
"""

import time

from api.http import Problem
from streams import Log

KNOWN_TENANTS = 65_536  # remembered; of another the server is asked once more whether it has a log


class NewTenants:
    """Lets tenants begin, as many a second; those who have a log pass. A bucket of as many tokens, full at the start."""

    def __init__(self, log: Log, per_second: int) -> None:
        self._log = log
        self._per_second = per_second
        self._known: dict[str, None] = {}
        self._tokens = float(per_second)
        self._filled = time.monotonic()

    async def admit(self, tenant: str) -> None:
        """Let a tenant append. Raises Problem when too many began in this second, LogUnavailable."""
        if tenant in self._known:
            return
        if not await self._log.holds(tenant):
            self._begin()
        if len(self._known) >= KNOWN_TENANTS:
            del self._known[next(iter(self._known))]
        self._known[tenant] = None

    def _begin(self) -> None:
        now = time.monotonic()
        self._tokens = min(self._per_second, self._tokens + (now - self._filled) * self._per_second)
        self._filled = now
        if self._tokens < 1:
            detail = f"{self._per_second} new tenants may begin in a second while AUTH is open"
            raise Problem(429, "too-many-new-tenants", detail, limit=self._per_second)
        self._tokens -= 1
