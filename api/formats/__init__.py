"""Formats: what other people's clients send, as events of ours. One pure module each; `api.ingest.foreign` carries them out.

A format opens a request, which gives the messages in it and the key that stands there; makes an event of each message; and knows
the answer that its clients wait for. What comes after an event is the native path.
"""

from api.formats.format import Answer, Envelope, Format, Parts, Unreadable
from api.formats.routes import FOREIGN, Foreign

__all__ = ["FOREIGN", "Answer", "Envelope", "Foreign", "Format", "Parts", "Unreadable"]
