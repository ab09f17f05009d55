"""Tokens: JSON Web Tokens (RFC 7519) that another service signs, checked as RFC 8725 asks. The key's type says the algorithm,
never the token."""

import asyncio
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from api.auth.credentials import ROLES
from api.http import Problem
from streams import BadTenant, SettingError, Settings, keys_of

log_of_tokens = logging.getLogger("api")

SECRET_BYTES = 32  # RFC 7518, 3.2: as long as the hash
RSA_BITS = 2_048
FETCH_SECONDS = 3.0
FRESH_SECONDS = 300.0  # a key set is fetched again when it is older and a token comes
COOL_SECONDS = 10.0  # between two fetches, whatever comes


class Claims(msgspec.Struct, frozen=True):
    """What a token says: whose it is and what it may do."""

    tenant: str
    role: str


class TokenVerifier:
    """Checks tokens with a secret, a public key, or a set of keys that is fetched. Raises SettingError for an unusable key."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._fixed: tuple[str, Any] | None = None
        self._key_set: KeySet | None = None
        if settings.jwt_secret:
            if len(settings.jwt_secret.encode()) < SECRET_BYTES:
                raise SettingError("JWT_SECRET", f"must have {SECRET_BYTES} bytes or more.")
            self._fixed = "HS256", settings.jwt_secret
        elif settings.jwt_public_key_file:
            self._fixed = _public_key(settings.jwt_public_key_file)
        elif settings.jwt_jwks_url:
            self._key_set = KeySet(settings.jwt_jwks_url)

    async def claims(self, token: str) -> Claims:
        """What a token says. Raises Problem when it is not to be believed."""
        try:
            algorithm, key = self._fixed or await self._fetched(token)
            payload = self._decoded(token, algorithm, key)
        except jwt.PyJWTError as error:
            raise refused(str(error)) from None
        return self._claims(payload)

    async def _fetched(self, token: str) -> tuple[str, Any]:
        if self._key_set is None:
            raise refused("no tokens are taken here")
        return await self._key_set.find(jwt.get_unverified_header(token).get("kid"))

    def _decoded(self, token: str, algorithm: str, key: Any) -> dict[str, Any]:
        settings = self._settings
        payload: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=settings.jwt_audience or None,
            issuer=settings.jwt_issuer or None,
            leeway=settings.jwt_leeway_seconds,
            options={"require": ["exp"], "verify_aud": bool(settings.jwt_audience)},
        )
        if type(payload["exp"]) not in (int, float):  # the library takes a text of digits, too
            raise refused("exp must be a number")
        return payload

    def _claims(self, payload: dict[str, Any]) -> Claims:
        tenant, role = payload.get(self._settings.jwt_tenant_claim), payload.get(self._settings.jwt_role_claim)
        if type(tenant) is not str:
            raise refused(f"the claim {self._settings.jwt_tenant_claim!r} must name the tenant")
        if type(role) is not str or role not in ROLES:
            raise refused(f"the claim {self._settings.jwt_role_claim!r} must be one of {', '.join(ROLES)}")
        try:
            keys_of(tenant)
        except BadTenant as error:
            raise refused(str(error)) from None
        return Claims(tenant, role)


class KeySet:
    """The keys behind a JWKS URL, by their ids (RFC 7517). Fetched when a token needs it, never more often than every ten
    seconds; while the URL does not answer, the last keys hold."""

    def __init__(self, url: str) -> None:
        if "@" in urlsplit(url).netloc:  # which urllib takes for a part of the host's name, and says in its errors
            raise SettingError("JWT_JWKS_URL", "cannot be used with a user or password in it.")
        try:
            self._client = jwt.PyJWKClient(url, cache_jwk_set=False, timeout=FETCH_SECONDS)
        except jwt.PyJWTError as error:
            raise SettingError("JWT_JWKS_URL", f"cannot be used: {error}") from None
        self._keys: dict[str | None, tuple[str, Any]] = {}
        self._fetched = self._tried = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, key_id: Any) -> tuple[str, Any]:
        """The algorithm and key of that id; without an id, the only one there is. Raises Problem."""
        if type(key_id) is not str and key_id is not None:
            raise refused("kid must be a string")
        if key_id not in self._keys:
            if fetching := self._begin_fetch():
                await asyncio.wait({fetching}, timeout=FETCH_SECONDS)  # its thread may take longer than anybody waits
        elif time.monotonic() - self._fetched > FRESH_SECONDS:
            self._begin_fetch()
        if key_id in self._keys:
            return self._keys[key_id]
        if not self._keys:
            raise Problem(503, "token-keys-unavailable", "the keys that sign tokens could not be fetched yet")
        raise refused("no key has this token's kid")

    def _begin_fetch(self) -> "asyncio.Task[None] | None":
        """The one fetch that is under way; begun if none is and the last was long enough ago."""
        if self._fetching is not None and not self._fetching.done():
            return self._fetching
        if time.monotonic() - self._tried < COOL_SECONDS:
            return None
        self._fetching = asyncio.create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> None:
        try:
            members = (await asyncio.to_thread(self._client.fetch_data)).get("keys")
            usable = dict(_usable(members if isinstance(members, list) else []))
            if not usable:
                raise ValueError("it has no key that we take")
        except (jwt.PyJWTError, OSError, ValueError, RecursionError) as error:
            log_of_tokens.warning("JWT_JWKS_URL: %s", error)
        else:
            if len(usable) == 1:
                usable[None] = next(iter(usable.values()))
            else:
                usable.pop(None, None)
            self._keys, self._fetched = usable, time.monotonic()
        finally:
            self._tried = time.monotonic()


def _usable(members: list[Any]) -> Iterator[tuple[str | None, tuple[str, Any]]]:
    """The keys of a set that we take, each with its id and algorithm. One that is odd does not spoil the others."""
    for member in members:
        try:
            found = jwt.PyJWK(member)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError):
            continue
        algorithm = _algorithm_of(found.key)
        key_id = found.key_id
        if algorithm and found.public_key_use in ("sig", None) and (key_id is None or type(key_id) is str):
            yield key_id, (algorithm, found.key)


def refused(reason: str) -> Problem:
    """The answer to a token that is not to be believed."""
    words = reason.encode("ascii", "backslashreplace").decode()  # it may repeat what a header held
    return Problem(401, "token-invalid", f"the token is not valid: {words}")


def _public_key(path: str) -> tuple[str, Any]:
    """The algorithm and key of a PEM file."""
    try:
        key = load_pem_public_key(Path(path).read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise SettingError("JWT_PUBLIC_KEY_FILE", f"is no public key in PEM: {error}") from None
    algorithm = _algorithm_of(key)
    if algorithm is None:
        raise SettingError("JWT_PUBLIC_KEY_FILE", f"must hold an RSA key of {RSA_BITS} bits or more, P-256, or Ed25519.")
    return algorithm, key


def _algorithm_of(key: Any) -> str | None:
    """The one algorithm that we take with a key; None with one that is too weak, secret, or of another kind."""
    if isinstance(key, RSAPublicKey) and key.key_size >= RSA_BITS:
        return "RS256"
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return "ES256"
    return "EdDSA" if isinstance(key, Ed25519PublicKey) else None
