"""Credentials: keys, and where in a request a key or token stands. Pure."""

import base64
import binascii
import hashlib
import secrets
from typing import Literal

from api.http import Problem

Role = Literal["write", "read", "admin"]
ROLES: dict[str, frozenset[str]] = {
    "write": frozenset({"append"}),  # in a browser, everybody can read it
    "read": frozenset({"read"}),
    "admin": frozenset({"append", "read"}),
}
CREDENTIAL_LIMIT_BYTES = 8 * 1024
KEY_BYTES = 24
KEY_ID_LENGTH = 13  # ps_w_ and eight characters: enough to tell keys apart, not enough to use one

_AUTHORIZATION, _WRITE_KEY = b"authorization", b"x-write-key"


def new_key(role: Role) -> str:
    """A new key. Its prefix shows its role, and lets leak scanners find it."""
    return f"ps_{role[0]}_{secrets.token_urlsafe(KEY_BYTES)}"


def hash_of(key: str) -> bytes:
    """The SHA-256 of a key, which is all that is stored of it.

    Keys are random, so a slower hash would not protect them better.
    """
    return hashlib.sha256(key.encode()).digest()


def credential_of(headers: list[tuple[bytes, bytes]]) -> str | None:
    """The key or token of a request; None if it has none. Raises Problem.

    It is a Bearer token, the user name of Basic, or X-Write-Key. In the last, Jitsu's SDKs add a colon and a secret, which are
    ignored.
    """
    credentials = [(name, value) for name, value in headers if name in (_AUTHORIZATION, _WRITE_KEY)]
    if not credentials:
        return None
    if len(credentials) > 1:
        detail = f"send one Authorization or X-Write-Key header; this request has {len(credentials)}"
        raise Problem(400, "credential-ambiguous", detail, limit=1, value=len(credentials))
    [(name, value)] = credentials
    if len(value) > CREDENTIAL_LIMIT_BYTES:
        detail = f"a credential may have {CREDENTIAL_LIMIT_BYTES} bytes"
        raise Problem(401, "credential-invalid", detail, limit=CREDENTIAL_LIMIT_BYTES, value=len(value))
    try:
        return value.decode("ascii").partition(":")[0] if name == _WRITE_KEY else _from_authorization(value)
    except (UnicodeDecodeError, binascii.Error):
        raise Problem(401, "credential-invalid", "the credential is not ASCII, or its base64 is damaged") from None


def _from_authorization(value: bytes) -> str:
    """The credential of an Authorization header."""
    scheme, _, content = value.strip().partition(b" ")
    if scheme.lower() == b"bearer":
        return content.strip().decode("ascii")
    if scheme.lower() == b"basic":
        return base64.b64decode(content.strip(), validate=True).decode("ascii").partition(":")[0]
    raise Problem(401, "credential-invalid", "Authorization must be Bearer, or Basic with the key as user name")
