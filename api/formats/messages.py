"""Messages of foreign formats as JSON objects. Pure."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from streams import Rejected
from streams.validation import decode_json

NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)  # what msgspec raises for bytes that it cannot decode

_encode = msgspec.json.Encoder(order="deterministic").encode


def object_in(raw: bytes, without: Sequence[str] = ()) -> dict[str, Any]:
    """The members of a message, without some. Raises Rejected."""
    message = decode_json(raw)
    if type(message) is not dict:
        raise Rejected("", "must be a JSON object")
    for name in without:
        message.pop(name, None)
    return message


def identity_without(names: Sequence[str]) -> Callable[[bytes], bytes]:
    """A function that gives a message without some members.

    They are members that differ in a resend; what remains identifies the dead letter that is made of the message.
    """

    def identity_of(raw: bytes) -> bytes:
        try:
            return _encode(object_in(raw, names))
        except Rejected:
            return raw

    return identity_of
