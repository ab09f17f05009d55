"""Tokens: JSON Web Tokens (RFC 7519) that another service signs.

They are verified as RFC 8725 recommends. The algorithm follows from the type of the key, never from the token.
"""

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
from streams import keys_of
from streams.errors import BadTenant
from streams.runtime import SettingError, Settings

log_of_tokens = logging.getLogger("api")

SECRET_BYTES = 32  # as long as the hash (RFC 7518, 3.2)
RSA_BITS = 2_048
FETCH_SECONDS = 3.0
MAX_AGE_SECONDS = 300.0  # when a key set is older, the next token causes a fetch
MIN_FETCH_INTERVAL_SECONDS = 10.0


class Claims(msgspec.Struct, frozen=True):
    """The tenant and role that a token claims."""

    tenant: str
    role: str


class TokenVerifier:
    """Verifies tokens with a secret, a public key, or a fetched key set.

    Raises SettingError for an unusable key.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._fixed_key: tuple[str, Any] | None = None
        self._key_set: KeySet | None = None
        if settings.jwt_secret:
            if len(settings.jwt_secret.encode()) < SECRET_BYTES:
                raise SettingError("JWT_SECRET", f"must have {SECRET_BYTES} bytes or more.")
            self._fixed_key = "HS256", settings.jwt_secret
        elif settings.jwt_public_key_file:
            self._fixed_key = _public_key(settings.jwt_public_key_file)
        elif settings.jwt_jwks_url:
            self._key_set = KeySet(settings.jwt_jwks_url)

    async def claims(self, token: str) -> Claims:
        """The claims of a token. Raises Problem for an invalid token."""
        try:
            algorithm, key = self._fixed_key or await self._key_from_set(token)
            payload = self._verified(token, algorithm, key)
        except jwt.PyJWTError as error:
            raise refused(str(error)) from None
        return self._claims(payload)

    async def _key_from_set(self, token: str) -> tuple[str, Any]:
        if self._key_set is None:
            raise refused("this server accepts no tokens")
        return await self._key_set.find(jwt.get_unverified_header(token).get("kid"))

    def _verified(self, token: str, algorithm: str, key: Any) -> dict[str, Any]:
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
        if type(payload["exp"]) not in (int, float):  # the library also accepts a text of digits
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
    """The keys at a JWKS URL, by their ids (RFC 7517).

    They are fetched when a token needs them, at most every ten seconds. While the URL does not answer, the last keys are used.
    """

    def __init__(self, url: str) -> None:
        if "@" in urlsplit(url).netloc:  # urllib takes it for a part of the host name, and repeats it in errors
            raise SettingError("JWT_JWKS_URL", "cannot be used with a user or password in it.")
        try:
            self._client = jwt.PyJWKClient(url, cache_jwk_set=False, timeout=FETCH_SECONDS)
        except jwt.PyJWTError as error:
            raise SettingError("JWT_JWKS_URL", f"cannot be used: {error}") from None
        self._keys: dict[str | None, tuple[str, Any]] = {}
        self._fetched = self._tried = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, key_id: Any) -> tuple[str, Any]:
        """The algorithm and key with this id. Raises Problem.

        Without an id, it is the only key of the set.
        """
        if type(key_id) is not str and key_id is not None:
            raise refused("kid must be a string")
        if key_id not in self._keys:
            if fetching := self._begin_fetch():
                await asyncio.wait({fetching}, timeout=FETCH_SECONDS)  # its thread may take longer
        elif time.monotonic() - self._fetched > MAX_AGE_SECONDS:
            self._begin_fetch()
        if key_id in self._keys:
            return self._keys[key_id]
        if not self._keys:
            raise Problem(503, "token-keys-unavailable", "the keys that verify tokens could not be fetched yet")
        raise refused("no key has this token's kid")

    def _begin_fetch(self) -> "asyncio.Task[None] | None":
        """The running fetch, or a new one; None soon after the last."""
        if self._fetching is not None and not self._fetching.done():
            return self._fetching
        if time.monotonic() - self._tried < MIN_FETCH_INTERVAL_SECONDS:
            return None
        self._fetching = asyncio.create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> None:
        try:
            members = (await asyncio.to_thread(self._client.fetch_data)).get("keys")
            usable = dict(_usable(members if isinstance(members, list) else []))
            if not usable:
                raise ValueError("it has no usable key")
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
    """The usable keys of a set, each with its id and algorithm.

    A malformed key is skipped.
    """
    for member in members:
        try:
            key = jwt.PyJWK(member)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError):
            continue
        algorithm = _algorithm_of(key.key)
        key_id = key.key_id
        if algorithm and key.public_key_use in ("sig", None) and (key_id is None or type(key_id) is str):
            yield key_id, (algorithm, key.key)


def refused(reason: str) -> Problem:
    """The problem for an invalid token."""
    words = reason.encode("ascii", "backslashreplace").decode()  # it may repeat text of a header
    return Problem(401, "token-invalid", f"the token is not valid: {words}")


def _public_key(path: str) -> tuple[str, Any]:
    """The algorithm and key of a PEM file."""
    try:
        key = load_pem_public_key(Path(path).read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise SettingError("JWT_PUBLIC_KEY_FILE", f"is not a public key in PEM: {error}") from None
    algorithm = _algorithm_of(key)
    if algorithm is None:
        raise SettingError("JWT_PUBLIC_KEY_FILE", f"must hold an RSA key of {RSA_BITS} bits or more, P-256, or Ed25519.")
    return algorithm, key


def _algorithm_of(key: Any) -> str | None:
    """The algorithm for a key; None for a key that must not be used.

    Such a key is too weak, secret, or of an unsupported type.
    """
    if isinstance(key, RSAPublicKey) and key.key_size >= RSA_BITS:
        return "RS256"
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return "ES256"
    return "EdDSA" if isinstance(key, Ed25519PublicKey) else None
