"""How PostHog's SDKs wrap events in a request: a batch, a list, or one; as JSON, or in a form, in base64. Pure."""

import base64
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from api.formats.clock_skew import clock_of, text_of
from api.formats.format import Envelope, Parts, Unreadable
from api.formats.ids import text_or_none
from streams import Rejected

FIELDS = LOOKED_AT = 100


class Sent(msgspec.Struct):
    """What a body says of its sending; without a batch it is an event itself."""

    batch: list[msgspec.Raw] | None = None
    api_key: Any = None
    token: Any = None
    sent_at: Any = None


class Properties(msgspec.Struct):
    """Where browsers name their project: in an event's properties."""

    token: Any = None


class Single(msgspec.Struct):
    """An event, looked at for its key only."""

    properties: Properties
    api_key: Any = None


_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_sent = msgspec.json.Decoder(Sent).decode
_decode_single = msgspec.json.Decoder(Single).decode


def open_request(parts: Parts) -> Envelope:
    """The events of a request."""
    try:
        query = fields_of(parts.query)
        body = json_in(parts.body)
        if body.startswith(b"["):
            messages, sent = _bytes_of(_decode_list(body)), Sent()
        else:
            sent = _decode_sent(body)
            messages = [body] if sent.batch is None else _bytes_of(sent.batch)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise Unreadable(f"the body is nothing of PostHog's: {error}") from None
    sent_at = sent.sent_at or milliseconds(query.get("_", ""))
    key = text_or_none(sent.api_key) or text_or_none(sent.token) or key_among(messages)
    return Envelope(messages, parts.received_at_us, key, clock_of(sent_at, parts.received_at_us))


def json_in(body: bytes) -> bytes:
    """The JSON of a body: all of it, or what its form has as `data`, in base64 or not."""
    body = body.strip()
    if body[:1] in (b"{", b"["):
        return body
    data = fields_of(body).get("data", "").strip()
    if data[:1] in ("{", "["):
        return data.encode()
    return base64.b64decode(data.replace(" ", "+"), validate=True).strip()  # where + was not written as %2B


def fields_of(form: bytes) -> dict[str, str]:
    """A form's fields. Raises ValueError for what is none, or has too many."""
    return dict(parse_qsl(form.decode("ascii"), max_num_fields=FIELDS))


def _bytes_of(raws: Sequence[msgspec.Raw]) -> list[bytes]:
    return [bytes(raw) for raw in raws]


def key_among(messages: Sequence[bytes]) -> str | None:
    """The key that the first events name, one of which may be bad."""
    for message in messages[:LOOKED_AT]:
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            event = _decode_single(message)
            if key := text_or_none(event.properties.token) or text_or_none(event.api_key):
                return key
    return None


def milliseconds(digits: str) -> str:
    """RFC 3339 for when posthog-js says in its query that it sent; empty when it does not."""
    try:
        return text_of(int(digits) * 1_000)
    except (ValueError, Rejected):
        return ""
