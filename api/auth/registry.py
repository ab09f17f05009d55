"""The registry: all keys and limits, in the memory of an API process.

So no request waits for a round trip to the database.
"""

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

REFRESH_SECONDS = 0.5  # a revoked key stops within two seconds, even when uses are noted meanwhile
NOTE_USES_SECONDS = 30.0
_NO_HASH = bytes(32)


class Registry:
    """Keys and limits from the tables, at most a second old.

    A background task reads them, never a request.
    """

    def __init__(self, store: Store, defaults: Limits) -> None:
        self._store = store
        self._defaults = defaults
        self._version: int | None = None
        self._keys: dict[bytes, ApiKey] = {}
        self._limits: dict[str, Limits] = {}
        self._used_at_us: dict[bytes, int] = {}

    def limits_of(self, tenant: str) -> Limits:
        """The limits of a tenant."""
        return self._limits.get(tenant, self._defaults)

    def find_key(self, secret: str) -> ApiKey | None:
        """The key with this secret, if it is known.

        An unknown secret takes as much time as a known one.
        """
        digest = hash_of(secret)
        key = self._keys.get(digest)
        if not hmac.compare_digest(key.key_hash if key else _NO_HASH, digest) or key is None:
            return None
        self._used_at_us[digest] = time.time_ns() // 1_000
        return key

    def refresh(self) -> None:
        """Read keys and limits again if any changed. Raises StoreUnavailable."""
        version = self._store.config_version()
        if version == self._version:
            return
        keys, own = self._store.api_keys.load(), self._store.tenant_limits.load()
        self._keys = {key.key_hash: key for key in keys}
        self._limits = {tenant: limits.over(self._defaults) for tenant, limits in own.items()}
        self._version = version  # it was read first, so a change made since then is read the next time

    def note_uses(self) -> None:
        """Store when keys were used. If that fails, the next call tries again."""
        used, self._used_at_us = self._used_at_us, {}
        if not used:
            return
        try:
            self._store.api_keys.note_uses(dict(used))  # a copy: a request may still write to the dict
        except StoreUnavailable as error:
            self._used_at_us = used | self._used_at_us
            if isinstance(error, StoreReplaced):
                with contextlib.suppress(StoreUnavailable):
                    self._store.reopen()

    @contextlib.asynccontextmanager
    async def kept_fresh(self) -> AsyncIterator[None]:
        """Keep keys and limits up to date. Raises StoreUnavailable at the start.

        At the end, the uses of keys are stored.
        """
        await asyncio.to_thread(self.refresh)
        stop = asyncio.Event()
        task = asyncio.create_task(self._refresh_until(stop))
        try:
            yield
        finally:
            stop.set()
            await task  # not cancelled: its thread would go on using connections that are being closed
            await asyncio.to_thread(self.note_uses)

    async def _refresh_until(self, stop: asyncio.Event) -> None:
        """Refresh until `stop` is set.

        Its reads run in the default executor, because readers may use every thread of their own pool. While the tables cannot be
        read, the last keys and limits stay valid, so that ingest does not depend on the tables; /readyz reports the failure.
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
            except Exception:  # go on: revoked keys must stop as soon as reading works again
                log_of_registry.exception("keys and limits could not be read")
