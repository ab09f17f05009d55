"""Set aside: what came in a good batch and is no event. It gets a record of its own kind, so that its bytes land in quarantine,
are found there again by a rebuild, and no neighbour waits for it. Pure.
"""

import base64
import hashlib
from typing import Literal

import msgspec

from streams.event import DEAD_LETTER_VERSION, Event, Record
from streams.validation import Rejected

DETAIL_LIMIT_CHARACTERS = 1_000
Reason = Literal["invalid", "conflict"]


class DeadLetter(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The JSON of what was set aside: its name, which format it came in, why, and its bytes; in base64 where they are no text.
    `original_bytes` is how many there were, where the log keeps only the first of them."""

    name: str
    format: str
    reason: Reason
    detail: str
    text: str = ""
    base64: str = ""
    original_bytes: int = 0

    @property
    def raw(self) -> bytes:
        """The bytes, as many as are kept."""
        return base64.b64decode(self.base64) if self.base64 else self.text.encode()


_decode = msgspec.json.Decoder(DeadLetter).decode
_encode = msgspec.json.Encoder(order="sorted").encode


def make(raw: bytes, *, format: str, reason: Reason, detail: str, limit_bytes: int, named_by: bytes = b"") -> Event:
    """What is appended in the place of an event that cannot be. The same bytes again are a duplicate; `named_by` stands for them
    where a resend is not the same to the byte."""
    kept = raw[:limit_bytes]
    try:
        text, encoded = kept.decode(), ""
    except UnicodeDecodeError:
        text, encoded = "", base64.b64encode(kept).decode()
    original_bytes = len(raw) if len(kept) < len(raw) else 0
    name = hashlib.sha256(b"\0".join((format.encode(), reason.encode(), named_by or raw))).hexdigest()
    return _event(DeadLetter(name, format, reason, detail[:DETAIL_LIMIT_CHARACTERS], text, encoded, original_bytes))


def _event(letter: DeadLetter) -> Event:
    return Event("", "", "", 0, letter.name, b"", _encode(letter), version=DEAD_LETTER_VERSION)


def parse(record: Record) -> DeadLetter:
    """What a record of this kind holds. Raises Rejected when it is none that this version knows."""
    try:
        found = _decode(record.body)
        _ = found.raw
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise Rejected("", f"is not what was set aside: {error}") from None
    return found


def parse_event(record: Record) -> Event:
    """What was appended, from its record. Raises Rejected."""
    return _event(parse(record))
