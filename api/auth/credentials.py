"""Credentials: what a request carries to say who sends it, and the keys that we make. Pure: headers in, a secret out."""

import base64
import binascii
import hashlib
import secrets
from typing import Literal

from api.http import Problem

Role = Literal["write", "read", "admin"]
ROLES: dict[str, frozenset[str]] = {
    "write": frozenset({"append"}),  # public wherever a browser has it
    "read": frozenset({"read"}),
    "admin": frozenset({"append", "read"}),
}
CREDENTIAL_LIMIT_BYTES = 8 * 1024
KEY_BYTES = 24
KEY_ID_LENGTH = 13  # ps_w_ and eight characters, which tell keys apart and open nothing

_AUTHORIZATION, _WRITE_KEY = b"authorization", b"x-write-key"


def new_key(role: Role) -> str:
    """A key. Its prefix says what it may do, and lets scanners for leaks know it."""
    return f"ps_{role[0]}_{secrets.token_urlsafe(KEY_BYTES)}"


def hash_of(key: str) -> bytes:
    """What is kept of a key: SHA-256. Keys are random, so nothing slower protects them better."""
    return hashlib.sha256(key.encode()).digest()


def credential_of(headers: list[tuple[bytes, bytes]]) -> str | None:
    """The key or token of a request, None when it has none; as Bearer, as user name of Basic, or as X-Write-Key,
    where Jitsu's SDKs put a secret behind a colon."""
    given = [(name, value) for name, value in headers if name in (_AUTHORIZATION, _WRITE_KEY)]
    if not given:
        return None
    if len(given) > 1:
        detail = f"one Authorization or X-Write-Key header may stand in a request; there are {len(given)}"
        raise Problem(400, "credential-ambiguous", detail, limit=1, value=len(given))
    [(name, value)] = given
    if len(value) > CREDENTIAL_LIMIT_BYTES:
        detail = f"a credential has {CREDENTIAL_LIMIT_BYTES} bytes at most"
        raise Problem(401, "credential-invalid", detail, limit=CREDENTIAL_LIMIT_BYTES, value=len(value))
    try:
        return value.decode("ascii").partition(":")[0] if name == _WRITE_KEY else _authorized(value)
    except (UnicodeDecodeError, binascii.Error):
        raise Problem(401, "credential-invalid", "the credential is not ASCII, or its base64 is damaged") from None


def _authorized(value: bytes) -> str:
    """The credential of an Authorization header."""
    scheme, _, rest = value.strip().partition(b" ")
    if scheme.lower() == b"bearer":
        return rest.strip().decode("ascii")
    if scheme.lower() == b"basic":
        return base64.b64decode(rest.strip(), validate=True).decode("ascii").partition(":")[0]
    raise Problem(401, "credential-invalid", "Authorization must be Bearer, or Basic with the key as user name")
