"""What a format is: three functions and what goes between them. Pure: no I/O, no clock of its own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from api.schemas import Refusal
from streams import Event

ASKED = 10_000


class Unreadable(Exception):
    """A request is nothing that this format knows: why, in words. Its client is answered 400; why is said to who may append, so
    `key` is the one that stands in the request, if it could be found."""

    def __init__(self, why: str, key: str | None = None) -> None:
        super().__init__(why)
        self.key = key


class Parts(msgspec.Struct, frozen=True):
    """A request: its path's parameters, query string, headers by name in lower case, unpacked body, and when it came."""

    path: Mapping[str, str]
    query: bytes
    headers: Mapping[bytes, bytes]
    body: bytes
    received_at_us: int


class Envelope(msgspec.Struct, frozen=True):
    """An opened request: its messages as JSON texts, when it came, the key that stands in it, and by how much the client's clock
    is wrong, in microseconds. `context` is what else the format wants to know of it again. `name` is no secret: it says who sends
    while AUTH is open, and opens nothing otherwise."""

    messages: Sequence[bytes]
    received_at_us: int
    key: str | None = None
    clock_us: int = 0
    context: Any = None
    name: str | None = None


def asked(messages: Sequence[bytes]) -> Sequence[bytes]:
    """The messages that are asked whose they are, before anybody is admitted: of millions, most would be refused anyway."""
    return messages[:ASKED]


class Answer(msgspec.Struct, frozen=True):
    """An answer to a client."""

    status: int
    body: bytes = b""
    media_type: str = "application/json"


def same(message: bytes) -> bytes:
    """A message that a resend repeats to the byte names itself."""
    return message


def plain(refusal: Refusal) -> Refusal:
    """A refusal as most SDKs can read it."""
    return refusal


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """A foreign format.

    `open` raises Unreadable, and `event_of` Rejected: then the message is set aside with its bytes. `named_by` is the message
    without what differs in a resend. `answer` is for a request of which everything is in the log or was before. `again` is the
    status that makes the client send the same again later: 429 or 503. `refuse` gives a refusal the words that its clients know.
    """

    name: str
    open: Callable[[Parts], Envelope]
    event_of: Callable[[bytes, Envelope], Event]
    answer: Callable[[Parts, Envelope], Answer]
    named_by: Callable[[bytes], bytes] = same
    again: int = 429
    refuse: Callable[[Refusal], Refusal] = plain
