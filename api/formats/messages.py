"""Messages of foreign formats as JSON objects, without what is said of their sending. Pure."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from streams import Rejected, decode_json

_encode = msgspec.json.Encoder(order="deterministic").encode


def object_in(raw: bytes, without: Sequence[str] = ()) -> dict[str, Any]:
    """A message's members, but some. Raises Rejected."""
    message = decode_json(raw)
    if type(message) is not dict:
        raise Rejected("", "must be a JSON object")
    for name in without:
        message.pop(name, None)
    return message


def named_without(names: Sequence[str]) -> Callable[[bytes], bytes]:
    """What names a message that is set aside: all of it but what differs in a resend."""

    def named_by(raw: bytes) -> bytes:
        try:
            return _encode(object_in(raw, names))
        except Rejected:
            return raw

    return named_by
