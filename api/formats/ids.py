"""Ids of events and actors in foreign formats. Pure."""

import hashlib
from typing import Any

import msgspec

from streams import Rejected

_encode = msgspec.json.Encoder(order="deterministic").encode


def text_or_none(value: Any) -> str | None:
    """A value if it is text and not empty, else None."""
    return value if type(value) is str and value else None


def id_or_none(field: str, value: Any) -> str | None:
    """An id as text; None for null and for empty text.

    An SDK may send an id as a whole number. Raises Rejected for other types.
    """
    if value is None or value == "":
        return None
    if type(value) not in (str, int):
        raise Rejected(field, "must be a string or a whole number")
    return str(value)


def id_or_empty(value: Any) -> str:
    """An id as text; empty if it is neither text nor a number."""
    if type(value) is str:
        return value
    return str(value) if type(value) in (int, float) else ""


def content_id(*content: Any) -> str:
    """An event_id for an event without one, computed from content.

    The content must include the actor, and nothing that differs in a resend.
    """
    return f"content:{hashlib.sha256(_encode(content)).hexdigest()[:32]}"
