"""Segment's HTTP API, which RudderStack's SDKs speak, too: a batch, or one message whose kind its path names.

https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/. A message's `messageId` is its event_id. Its name
is that of its event, or its kind; everything it holds but that stays in its properties, under the names it has there.
"""

from typing import Any

import msgspec

from api.formats.clock import clock_of, timed
from api.formats.format import Answer, Envelope, Format, Parts, Unreadable
from api.formats.names import content_name, text_or_none
from streams import Event, Rejected, decode_json, make_event

KINDS = ("track", "identify", "page", "screen", "group", "alias")
CALLS = {"batch": None, "b": None} | {kind: kind for kind in KINDS} | {kind[0]: kind for kind in KINDS}
TRANSPORT = ("sentAt", "writeKey", "receivedAt", "_metadata")


class Batch(msgspec.Struct, rename="camel"):
    """A batch."""

    batch: list[msgspec.Raw]
    sent_at: Any = None
    write_key: Any = None


class One(msgspec.Struct, rename="camel"):
    """What a message says of its sending."""

    sent_at: Any = None
    write_key: Any = None


_decode_batch = msgspec.json.Decoder(Batch).decode
_decode_one = msgspec.json.Decoder(One).decode


def open_request(parts: Parts) -> Envelope:
    """The messages of a request."""
    kind = CALLS[parts.path["call"]]
    try:
        if kind is None:
            batch = _decode_batch(parts.body)
            messages, sent, key = [bytes(raw) for raw in batch.batch], batch.sent_at, batch.write_key
        else:
            one = _decode_one(parts.body)
            messages, sent, key = [parts.body], one.sent_at, one.write_key
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"the body is no batch of Segment's: {error}") from None
    return Envelope(messages, parts.received_at_us, text_or_none(key), clock_of(sent, parts.received_at_us), kind)


def event_of(raw: bytes, envelope: Envelope) -> Event:
    """The event that a message is."""
    message = decode_json(raw)
    if type(message) is not dict:
        raise Rejected("", "must be a JSON object")
    for name in TRANSPORT:
        message.pop(name, None)
    kind = message.get("type") or envelope.context
    if kind not in KINDS:
        raise Rejected("type", f"must be one of {', '.join(KINDS)}")
    properties = message | {"type": kind} | ids_of(message)
    timestamp = message.get("timestamp") or message.get("originalTimestamp")
    for name in ("messageId", "timestamp", "originalTimestamp", "userId", "anonymousId", "previousId"):
        properties.pop(name, None)
    return make_event(
        session_id=session_of(message),
        event_type=message.get("event") if kind == "track" else kind,
        event_id=message.get("messageId") or content_name(properties, timestamp),
        properties=properties,
        **timed(timestamp, envelope),
    )


def ids_of(message: dict[str, Any]) -> dict[str, Any]:
    """Who a message is about, under our names; what is missing, null or empty is nobody."""
    named = {"user_id": "userId", "anonymous_id": "anonymousId", "previous_id": "previousId"}
    return {ours: str(message[theirs]) for ours, theirs in named.items() if message.get(theirs) not in (None, "")}


def session_of(message: dict[str, Any]) -> str:
    """The session that RudderStack's browser SDK counts, empty for others."""
    context = message.get("context")
    session = context.get("sessionId") if type(context) is dict else None
    return str(session) if type(session) in (int, str) else ""


def answer(parts: Parts, envelope: Envelope) -> Answer:
    """What both SDKs take for success."""
    return Answer(200, b'{"success":true}')


SEGMENT = Format(name="segment", open=open_request, event_of=event_of, answer=answer)


def choose(parts: Parts) -> Format:
    """Segment's, for the calls that it has."""
    if parts.path["call"] not in CALLS:
        raise Unreadable(f"calls here are {', '.join(CALLS)}")
    return SEGMENT
