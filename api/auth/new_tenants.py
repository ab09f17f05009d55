"""A limit on how many tenants may be created in a second.

With AUTH=open, a request may name any tenant, and an event for a new tenant creates it. The server then keeps some Redis keys for
that tenant permanently.
"""

import time

from api.http import Problem
from streams import Log

KNOWN_TENANTS = 65_536  # remembered here; for any other tenant, the server is asked whether a log exists


class NewTenants:
    """Admits tenants that have a log, and a few new ones a second.

    Each new tenant takes a token from a bucket. The bucket holds the tokens of one second and is full at the start.
    """

    def __init__(self, log: Log, per_second: int) -> None:
        self._log = log
        self._per_second = per_second
        self._known: dict[str, None] = {}
        self._tokens = float(per_second)
        self._filled_at = time.monotonic()

    async def admit(self, tenant: str) -> None:
        """Let a tenant append, unless too many tenants are new.

        Raises Problem when too many tenants were created in this second; LogUnavailable.
        """
        if tenant in self._known:
            return
        if not await self._log.holds(tenant):
            self._take_token()
        if len(self._known) >= KNOWN_TENANTS:
            del self._known[next(iter(self._known))]
        self._known[tenant] = None

    def _take_token(self) -> None:
        now = time.monotonic()
        self._tokens = min(self._per_second, self._tokens + (now - self._filled_at) * self._per_second)
        self._filled_at = now
        if self._tokens < 1:
            detail = f"at most {self._per_second} new tenants may be created in a second while AUTH is open"
            raise Problem(429, "too-many-new-tenants", detail, limit=self._per_second)
        self._tokens -= 1
