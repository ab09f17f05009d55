"""Ids in foreign formats: of events and of actors. Pure."""

import hashlib
from typing import Any

import msgspec

from streams import Rejected

_encode = msgspec.json.Encoder(order="deterministic").encode


def text_or_none(value: Any) -> str | None:
    """A text that is not empty, else None."""
    return value if type(value) is str and value else None


def id_or_none(field: str, value: Any) -> str | None:
    """An id as text; None for null and the empty text.

    SDKs may send it as a number. Raises Rejected for any other type.
    """
    if value is None or value == "":
        return None
    if type(value) not in (str, int):
        raise Rejected(field, "must be a string or a whole number")
    return str(value)


def id_or_empty(value: Any) -> str:
    """An id as text; empty for anything but text and numbers."""
    if type(value) is str:
        return value
    return str(value) if type(value) in (int, float) else ""


def content_id(*content: Any) -> str:
    """An event_id made of content, for an event that has none.

    The content includes the actor, and nothing that differs in a resend.
    """
    return f"content:{hashlib.sha256(_encode(content)).hexdigest()[:32]}"
