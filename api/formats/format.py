"""What a format is: a few functions, and the data between them. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from api.schemas import Refusal
from streams import Event

KEY_SEARCH_LIMIT = 10_000  # messages in which a key is searched before the sender is admitted; larger requests are refused


class Unreadable(Exception):
    """A request that its format cannot read; the message says why.

    The client is answered 400, with the reason if it may append. `key` is the key that stands in the request, if it was found.
    """

    def __init__(self, reason: str, key: str | None = None) -> None:
        super().__init__(reason)
        self.key = key


class ForeignRequest(msgspec.Struct, frozen=True):
    """A request as a format sees it.

    `path` holds the path parameters, `headers` the headers by lower-case name, `body` the unpacked body.
    """

    path: Mapping[str, str]
    query: bytes
    headers: Mapping[bytes, bytes]
    body: bytes
    received_at_us: int


class OpenedRequest(msgspec.Struct, frozen=True):
    """The messages in a request, as JSON texts, and their common data.

    - `key`: the key in the request.
    - `clock_us`: by how many microseconds the client's clock is slow.
    - `context`: further data of the format, for its events or its answer.
    - `open_tenant`: the tenant that the request names without a key. It counts only while AUTH is open.
    """

    messages: Sequence[bytes]
    received_at_us: int
    key: str | None = None
    clock_us: int = 0
    context: Any = None
    open_tenant: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """An answer to a client."""

    status: int
    body: bytes = b""
    media_type: str = "application/json"


def whole_message(message: bytes) -> bytes:
    """The identity of a message that a resend repeats byte for byte."""
    return message


def unchanged(refusal: Refusal) -> Refusal:
    """A refusal in the form that most SDKs can read."""
    return refusal


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """A foreign format.

    - `open` finds the messages in a request, or raises Unreadable.
    - `event_of` makes an event of a message, or raises Rejected. A rejected message is kept as a dead letter.
    - `answer` makes the answer to a request whose messages are all in the log.
    - `identity_of` gives the bytes that identify a dead letter: the message without the parts that differ in a resend.
    - `status_when_limited` is the status that makes the clients send the same again later: 429 or 503.
    - `refuse` puts a refusal into the words that the clients know.
    """

    name: str
    open: Callable[[ForeignRequest], OpenedRequest]
    event_of: Callable[[bytes, OpenedRequest], Event]
    answer: Callable[[ForeignRequest, OpenedRequest], Answer]
    identity_of: Callable[[bytes], bytes] = whole_message
    status_when_limited: int = 429
    refuse: Callable[[Refusal], Refusal] = unchanged
