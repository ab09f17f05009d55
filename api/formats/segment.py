"""Segment's HTTP API, which the SDKs of RudderStack and Jitsu speak.

https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/. A request is a batch, or a message whose type is
in the path. Jitsu has paths of its own. `messageId` is the event_id. The event_type is the `event` of a track call, else the type
of the call. All other members are properties, under the names that they have in the message.
"""

from typing import Any
from urllib.parse import parse_qs

import msgspec

from api.formats.clock_skew import clock_skew_us, time_arguments
from api.formats.format import Answer, ForeignRequest, Format, OpenedRequest, Unreadable
from api.formats.ids import content_id, id_or_empty, text_or_none
from api.formats.messages import NOT_JSON, identity_without, object_in
from streams import Event, Rejected, make_event

TYPES = ("track", "identify", "page", "screen", "group", "alias")
CALLS = {"batch": None, "b": None} | {name: name for name in TYPES} | {name[0]: name for name in TYPES}
TRANSPORT = ("sentAt", "writeKey", "receivedAt", "_metadata")
ACTOR_IDS = (("userId", "user_id"), ("anonymousId", "anonymous_id"), ("previousId", "previous_id"))


class Batch(msgspec.Struct, rename="camel"):
    """A batch."""

    batch: list[msgspec.Raw]
    sent_at: Any = None
    write_key: Any = None


class SingleMessage(msgspec.Struct, rename="camel"):
    """The members of a message that concern its transport."""

    sent_at: Any = None
    write_key: Any = None


_decode_batch = msgspec.json.Decoder(Batch).decode
_decode_single = msgspec.json.Decoder(SingleMessage).decode


def open_request(request: ForeignRequest) -> OpenedRequest:
    """The messages of a request."""
    call_type = CALLS[request.path["call"]]
    content: Batch | SingleMessage
    try:
        if call_type is None:
            content = _decode_batch(request.body)
            messages = [bytes(raw) for raw in content.batch]
        else:
            content = _decode_single(request.body)
            messages = [request.body]
    except NOT_JSON as error:
        raise Unreadable(f"the body is not a Segment {request.path['call']}: {error}") from None
    key = text_or_none(content.write_key) or _key_of_beacon(request.query)
    skew_us = clock_skew_us(content.sent_at, request.received_at_us)
    return OpenedRequest(messages, request.received_at_us, key, skew_us, call_type)


def _key_of_beacon(query: bytes) -> str | None:
    """The key in the query: RudderStack's beacons cannot set headers."""
    return parse_qs(query.decode("latin-1")).get("writeKey", [None])[0] if query else None


def event_of(raw: bytes, opened: OpenedRequest) -> Event:
    """The event of a message."""
    message = object_in(raw, TRANSPORT)
    message_type = message.get("type") or opened.context
    if message_type not in TYPES:
        raise Rejected("type", f"must be one of {', '.join(TYPES)}")
    message["type"] = message_type
    original = message.pop("originalTimestamp", None)
    timestamp = message.pop("timestamp", None) or original
    for segment_name, name in ACTOR_IDS:
        value = message.pop(segment_name, None)
        if value is not None and (id := id_or_empty(value)):
            message[name] = id
    session_id = _take_session(message, message_type)
    message_id = message.pop("messageId", None)
    return make_event(
        session_id=session_id,
        event_id=content_id(message, timestamp) if message_id in (None, "") else id_or_empty(message_id) or message_id,
        event_type=message.pop("event", None) if message_type == "track" else message_type,
        properties=message,
        **time_arguments(timestamp, opened),
    )


def _take_session(message: dict[str, Any], message_type: str) -> str:
    """The session that RudderStack's browser SDK sends; empty for others.

    Traits in the context of an identify or group call are moved to where the call usually has them.
    """
    context = message.get("context")
    if type(context) is not dict:
        return ""
    if message_type in ("identify", "group") and "traits" in context and not message.get("traits"):
        message["traits"] = context.pop("traits")
    return id_or_empty(context.get("sessionId"))


SEGMENT = Format(
    name="segment",
    open=open_request,
    event_of=event_of,
    identity_of=identity_without(TRANSPORT),
    answer=lambda request, opened: Answer(200, b'{"success":true}'),
)
JITSU = msgspec.structs.replace(SEGMENT, name="jitsu", answer=lambda request, opened: Answer(200, b'{"ok":true}'))


def choose(request: ForeignRequest) -> Format:
    """Segment, for the calls that it has."""
    return _for_known_call(SEGMENT, request)


def choose_jitsu(request: ForeignRequest) -> Format:
    """Segment with Jitsu's answer."""
    return _for_known_call(JITSU, request)


def _for_known_call(format: Format, request: ForeignRequest) -> Format:
    if request.path["call"] not in CALLS:
        raise Unreadable(f"the calls of this path are {', '.join(CALLS)}")
    return format
