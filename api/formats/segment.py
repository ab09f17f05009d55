"""Segment's HTTP API, which RudderStack's SDKs speak, too, and Jitsu's under paths of its own: a batch, or one message whose kind
its path names.

https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/. A message's `messageId` is its event_id. Its name
is that of its event, or its kind; everything it holds but that stays in its properties, under the names it has there.
"""

from typing import Any
from urllib.parse import parse_qs

import msgspec

from api.formats.clock_skew import clock_of, timed
from api.formats.format import Answer, Envelope, Format, Parts, Unreadable
from api.formats.ids import content_name, text_of_id, text_or_none
from api.formats.messages import named_without, object_in
from streams import Event, Rejected, make_event

KINDS = ("track", "identify", "page", "screen", "group", "alias")
CALLS = {"batch": None, "b": None} | {kind: kind for kind in KINDS} | {kind[0]: kind for kind in KINDS}
TRANSPORT = ("sentAt", "writeKey", "receivedAt", "_metadata")
WHO = (("userId", "user_id"), ("anonymousId", "anonymous_id"), ("previousId", "previous_id"))


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
        raise Unreadable(f"the body is no {parts.path['call']} of Segment's: {error}") from None
    key = text_or_none(key) or _key_of_beacon(parts.query)
    return Envelope(messages, parts.received_at_us, key, clock_of(sent, parts.received_at_us), kind)


def _key_of_beacon(query: bytes) -> str | None:
    """The key of RudderStack's beacons, which have no headers."""
    return parse_qs(query.decode("latin-1")).get("writeKey", [None])[0] if query else None


def event_of(raw: bytes, envelope: Envelope) -> Event:
    """The event that a message is."""
    message = object_in(raw, TRANSPORT)
    kind = message.get("type") or envelope.context
    if kind not in KINDS:
        raise Rejected("type", f"must be one of {', '.join(KINDS)}")
    message["type"] = kind
    original = message.pop("originalTimestamp", None)
    timestamp = message.pop("timestamp", None) or original
    for theirs, ours in WHO:
        who = message.pop(theirs, None)
        if who is not None and (known := text_of_id(who)):
            message[ours] = known
    session = _session_of(message, kind)
    named = message.pop("messageId", None)
    return make_event(
        session_id=session,
        event_id=content_name(message, timestamp) if named in (None, "") else text_of_id(named) or named,
        event_type=message.pop("event", None) if kind == "track" else kind,
        properties=message,
        **timed(timestamp, envelope),
    )


def _session_of(message: dict[str, Any], kind: str) -> str:
    """The session that RudderStack's browser SDK counts, empty for others. The traits that a message is about may stand in its
    context, too; they come to their place."""
    context = message.get("context")
    if type(context) is not dict:
        return ""
    if kind in ("identify", "group") and "traits" in context and not message.get("traits"):
        message["traits"] = context.pop("traits")
    return text_of_id(context.get("sessionId"))


SEGMENT = Format(
    name="segment",
    open=open_request,
    event_of=event_of,
    named_by=named_without(TRANSPORT),
    answer=lambda parts, envelope: Answer(200, b'{"success":true}'),
)
JITSU = msgspec.structs.replace(SEGMENT, name="jitsu", answer=lambda parts, envelope: Answer(200, b'{"ok":true}'))


def choose(parts: Parts) -> Format:
    """Segment's, for the calls that it has."""
    return _known(SEGMENT, parts)


def choose_jitsu(parts: Parts) -> Format:
    """The same with Jitsu's answer."""
    return _known(JITSU, parts)


def _known(format: Format, parts: Parts) -> Format:
    if parts.path["call"] not in CALLS:
        raise Unreadable(f"calls here are {', '.join(CALLS)}")
    return format
