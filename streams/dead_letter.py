"""Dead letters: messages of a batch that are no valid events.

A dead letter gets a record of its own kind. Its bytes are listed in quarantine, a rebuild finds them there again, and the other
messages of the batch are accepted. Pure.
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
    """The JSON of a dead letter.

    `format` is the format in which the message came, `detail` says what is wrong with it. Its bytes stand in `text`, or in
    `base64` where they are not UTF-8. `original_bytes` is how many there were, where only the first of them are kept.
    """

    name: str
    format: str
    reason: Reason
    detail: str
    text: str = ""
    base64: str = ""
    original_bytes: int = 0

    @property
    def raw(self) -> bytes:
        """The bytes that are kept."""
        return base64.b64decode(self.base64) if self.base64 else self.text.encode()


_decode = msgspec.json.Decoder(DeadLetter).decode
_encode = msgspec.json.Encoder(order="sorted").encode


def make(raw: bytes, *, format: str, reason: Reason, detail: str, limit_bytes: int, named_by: bytes = b"") -> Event:
    """The event that is appended for a message that cannot be one.

    The same bytes again are a duplicate. `named_by` stands for them where a resend has other bytes. Of a message with more than
    `limit_bytes` bytes the first are kept.
    """
    kept = raw[:limit_bytes]
    try:
        text, encoded = kept.decode(), ""
    except UnicodeDecodeError:
        text, encoded = "", base64.b64encode(kept).decode()
    original_bytes = len(raw) if len(kept) < len(raw) else 0
    name = hashlib.sha256(b"\0".join((format.encode(), reason.encode(), named_by or raw))).hexdigest()
    return _event_of(DeadLetter(name, format, reason, detail[:DETAIL_LIMIT_CHARACTERS], text, encoded, original_bytes))


def _event_of(letter: DeadLetter) -> Event:
    return Event("", "", "", 0, letter.name, b"", _encode(letter), version=DEAD_LETTER_VERSION)


def parse(record: Record) -> DeadLetter:
    """The dead letter in a record.

    Raises Rejected when this version does not know it.
    """
    try:
        letter = _decode(record.body)
        _ = letter.raw
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise Rejected("", f"is not a dead letter: {error}") from None
    return letter


def parse_event(record: Record) -> Event:
    """The event that was appended for a dead letter, from its record.

    Raises Rejected.
    """
    return _event_of(parse(record))
