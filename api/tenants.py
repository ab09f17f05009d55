"""Which tenant a request speaks for, and whether it may do what it asks: by its header, its key, or its token."""

import asyncio
import contextlib
import hmac
import logging
import os
import time
from collections.abc import AsyncIterator

from api.credentials import ROLES, credential_of, hash_of
from api.newcomers import Newcomers
from api.problems import Problem
from api.tokens import Verifier
from projector import ApiKey, SqliteStore, StoreReplaced, StoreUnavailable, credentials
from streams import BadTenant, Log, Settings, keys_of

log_of_tenants = logging.getLogger("api")

TENANT_HEADER = b"x-tenant-id"
REFRESH_SECONDS = 0.5  # a revoked key stops within two, even when uses are noted meanwhile
NOTE_USES_SECONDS = 30.0
_NO_HASH = bytes(32)


def tenant_named(headers: list[tuple[bytes, bytes]]) -> str | None:
    """The tenant that X-Tenant-ID names, None without one. A name that could reach another's keys is refused here."""
    named = [value for key, value in headers if key == TENANT_HEADER]
    if not named:
        return None
    if len(named) > 1:
        raise Problem(400, "tenant-ambiguous", f"one X-Tenant-ID header is needed; there are {len(named)}", value=len(named))
    tenant = named[0].decode("latin-1")
    try:
        keys_of(tenant)
    except BadTenant as error:
        raise Problem(400, "tenant-invalid", str(error), value=tenant) from None
    return tenant


class KeyRing:
    """The keys as they are in the tables, at most a second old: a task reads them, never a request."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._version: int | None = None
        self._keys: dict[bytes, ApiKey] = {}
        self._used_at_us: dict[bytes, int] = {}

    def find(self, secret: str) -> ApiKey | None:
        """The key that a secret is. Unknown ones take the same work as known ones."""
        digest = hash_of(secret)
        key = self._keys.get(digest)
        if not hmac.compare_digest(key.key_hash if key else _NO_HASH, digest) or key is None:
            return None
        self._used_at_us[digest] = time.time_ns() // 1_000
        return key

    def refresh(self) -> None:
        """Read the keys again, if any came or went. Raises StoreUnavailable."""
        if self._version is None or credentials.version(self._store) != self._version:
            self._version, keys = credentials.load(self._store)
            self._keys = {key.key_hash: key for key in keys}

    def note_uses(self) -> None:
        """Keep when keys were used, now or the next time."""
        used, self._used_at_us = self._used_at_us, {}
        if not used:
            return
        try:
            credentials.note_uses(self._store, dict(used))  # a request may still write to the one it had found
        except StoreUnavailable as error:
            self._used_at_us = used | self._used_at_us
            if isinstance(error, StoreReplaced) and os.path.exists(self._store.path):  # a projector makes it anew, not we
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

        While the tables cannot be read the last keys hold: what comes in must not depend on them. /readyz names it.
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
                log_of_tenants.exception("the keys could not be read")


class Gate:
    """Lets requests in. In open mode the X-Tenant-ID header alone says who writes and reads."""

    def __init__(self, settings: Settings, log: Log, ring: KeyRing, tokens: Verifier) -> None:
        self._open = settings.auth == "open"
        self._newcomers = Newcomers(log, settings.new_tenants_per_second)
        self._ring = ring
        self._tokens = tokens

    async def admit(self, headers: list[tuple[bytes, bytes]], act: str) -> str:
        """The tenant that a request may `append` to or `read`. Raises Problem, LogUnavailable."""
        named = tenant_named(headers)
        if self._open:
            if named is None:
                raise Problem(400, "tenant-missing", "one X-Tenant-ID header is needed; there are 0", value=0)
            if act == "append":
                await self._newcomers.admit(named)
            return named
        tenant, role = await self._who(headers)
        if act not in ROLES[role]:
            raise Problem(403, "role-insufficient", f"who has the role {role} may not {act}", value=role)
        if named is not None and named != tenant:
            raise Problem(403, "tenant-mismatch", "X-Tenant-ID names another tenant than the credential")
        return tenant

    async def _who(self, headers: list[tuple[bytes, bytes]]) -> tuple[str, str]:
        """The tenant and role of a request's key or token."""
        credential = credential_of(headers)
        if credential is None:
            raise Problem(401, "credential-missing", "a key is needed: Authorization: Bearer, Basic user name, or X-Write-Key")
        if credential.count(".") == 2:  # no key has a dot
            claims = await self._tokens.claims(credential)
            return claims.tenant, claims.role
        key = self._ring.find(credential)
        if key is None:
            raise Problem(401, "credential-unknown", "this key is unknown or was revoked")
        return key.tenant_id, key.role
