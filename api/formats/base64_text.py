"""Base64 as clients send it. Pure."""

import base64
import binascii

_TO_STANDARD = bytes.maketrans(b"-_", b"+/")


def decode_base64(text: str) -> bytes:
    """The bytes that base64 encodes. Raises ValueError.

    The text may be standard or URL-safe, padded or not.
    """
    try:
        standard = text.encode("ascii").translate(_TO_STANDARD).rstrip(b"=")
        return base64.b64decode(standard + b"=" * (-len(standard) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
