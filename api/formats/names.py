"""What foreign formats need to name an event, and whom it is about. Pure."""

import hashlib
from typing import Any

import msgspec

_encode = msgspec.json.Encoder(order="deterministic").encode


def text_or_none(value: Any) -> str | None:
    """A text that says something, or None."""
    return value if type(value) is str and value else None


def content_name(*content: Any) -> str:
    """The event_id of an event that has none: its content, its actor in it. Nothing of it may differ in a resend."""
    return f"content:{hashlib.sha256(_encode(content)).hexdigest()[:32]}"
