"""The registry: the keys and limits of all tenants in an API process's memory, so that no request waits for a round trip."""

import asyncio
import contextlib
import hmac
import logging
import time
from collections.abc import AsyncIterator

from api.auth.credentials import hash_of
from projector import ApiKey, Store, StoreReplaced, StoreUnavailable
from streams import Limits

log_of_registry = logging.getLogger("api")

REFRESH_SECONDS = 0.5  # a revoked key stops within two, even when uses are noted meanwhile
NOTE_USES_SECONDS = 30.0
_NO_HASH = bytes(32)


class Registry:
    """Keys and limits as they are in the tables, at most a second old: a task reads them, never a request."""

    def __init__(self, store: Store, defaults: Limits) -> None:
        self._store = store
        self._defaults = defaults
        self._version: int | None = None
        self._keys: dict[bytes, ApiKey] = {}
        self._limits: dict[str, Limits] = {}
        self._used_at_us: dict[bytes, int] = {}

    def limits_of(self, tenant: str) -> Limits:
        """What a tenant may send."""
        return self._limits.get(tenant, self._defaults)

    def find_key(self, secret: str) -> ApiKey | None:
        """The key that a secret is. Unknown ones take the same work as known ones."""
        digest = hash_of(secret)
        key = self._keys.get(digest)
        if not hmac.compare_digest(key.key_hash if key else _NO_HASH, digest) or key is None:
            return None
        self._used_at_us[digest] = time.time_ns() // 1_000
        return key

    def refresh(self) -> None:
        """Read keys and limits again, if any changed. Raises StoreUnavailable."""
        version = self._store.config_version()
        if version == self._version:
            return
        keys, own = self._store.api_keys.load(), self._store.tenant_limits.load()
        self._keys = {key.key_hash: key for key in keys}
        self._limits = {tenant: one.over(self._defaults) for tenant, one in own.items()}
        self._version = version  # asked for first: what changed meanwhile is read again

    def note_uses(self) -> None:
        """Keep when keys were used, now or the next time."""
        used, self._used_at_us = self._used_at_us, {}
        if not used:
            return
        try:
            self._store.api_keys.note_uses(dict(used))  # a request may still write to the one it had found
        except StoreUnavailable as error:
            self._used_at_us = used | self._used_at_us
            if isinstance(error, StoreReplaced):
                with contextlib.suppress(StoreUnavailable):
                    self._store.reopen()

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Up to date from now to the end; what was used is kept at the end, too. Raises StoreUnavailable at the start."""
        await asyncio.to_thread(self.refresh)
        stop = asyncio.Event()
        task = asyncio.create_task(self._follow(stop))
        try:
            yield
        finally:
            stop.set()
            await task  # not cancelled: its thread would go on over connections that are being closed
            await asyncio.to_thread(self.note_uses)

    async def _follow(self, stop: asyncio.Event) -> None:
        """Refresh until told to stop, in threads of its own: those of readers may all be taken.

        While the tables cannot be read the last keys and limits hold: what comes in must not depend on them. /readyz names it.
        """
        noted = time.monotonic()
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), REFRESH_SECONDS)
            try:
                await asyncio.to_thread(self.refresh)
                if time.monotonic() - noted >= NOTE_USES_SECONDS:
                    noted = time.monotonic()
                    await asyncio.to_thread(self.note_uses)
            except StoreUnavailable:
                pass
            except Exception:  # whatever it is, a key that is revoked must stop once it is over
                log_of_registry.exception("keys and limits could not be read")
