"""What foreign formats need to name an event, and whom it is about. Pure."""

import hashlib
from typing import Any

import msgspec

from streams import Rejected

_encode = msgspec.json.Encoder(order="deterministic").encode


def text_or_none(value: Any) -> str | None:
    """A text that says something, or None."""
    return value if type(value) is str and value else None


def id_of(field: str, value: Any) -> str | None:
    """An id as text, which may be sent as a number; None for null and the empty one. Raises Rejected for what is no id."""
    if value is None or value == "":
        return None
    if type(value) not in (str, int):
        raise Rejected(field, "must be a string or a whole number")
    return str(value)


def text_of_id(value: Any) -> str:
    """An id as text, empty where there is none: SDKs send the numbers that their users give them."""
    if type(value) is str:
        return value
    return str(value) if type(value) in (int, float) else ""


def content_name(*content: Any) -> str:
    """The event_id of an event that has none: its content, its actor in it. Nothing of it may differ in a resend."""
    return f"content:{hashlib.sha256(_encode(content)).hexdigest()[:32]}"
