"""Base64 as clients send it. Pure."""

import base64
import binascii

_STANDARD = bytes.maketrans(b"-_", b"+/")


def bytes_in(text: str) -> bytes:
    """The bytes behind base64: standard or URL-safe, padded or not. Raises ValueError."""
    try:
        plain = text.encode("ascii").translate(_STANDARD).rstrip(b"=")
        return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
