"""Mixpanel's ingestion API: events, profiles, and imports.

https://docs.mixpanel.com/docs/tracking-methods. An event's `$insert_id` is its event_id, its name the event_type; its properties
stay in `properties`. A change of a profile, of a user or a group, is an event, too: its event_type is the operation, such as
`$set`, and its event_id is made of its content, because it has none. All messages of a batch must have one token: with several
tokens it would be unclear which tenant each message belongs to.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from api.formats.clock_skew import rfc3339_of_number, time_arguments
from api.formats.format import KEY_SEARCH_LIMIT, Answer, ForeignRequest, Format, OpenedRequest, Unreadable
from api.formats.forms import Payload, messages_in, payload_in
from api.formats.ids import content_id, text_or_none
from api.formats.messages import NOT_JSON, object_in
from api.formats.mixpanel_ids import ids_of_event, ids_of_profile
from streams import Event, Rejected, make_event

TOKEN = ("$token",)
OPERATIONS = frozenset({"$set", "$set_once", "$add", "$append", "$union", "$remove", "$unset", "$delete"})


class TokenInProperties(msgspec.Struct, frozen=True):
    """The token in an event's properties."""

    token: Any = None


class TokenProbe(msgspec.Struct, frozen=True):
    """The places in a message where a token may stand."""

    properties: TokenInProperties = TokenInProperties()
    token: Any = msgspec.field(name="$token", default=None)


_decode_probe = msgspec.json.Decoder(TokenProbe).decode
_encode = msgspec.json.Encoder().encode


def open_request(request: ForeignRequest) -> OpenedRequest:
    """The messages of a request."""
    payload = payload_in(request)
    messages = messages_in(payload.json)
    return OpenedRequest(messages, request.received_at_us, token_of(messages), context=payload)


def token_of(messages: Sequence[bytes]) -> str | None:
    """The token of all messages. Raises Unreadable for several tokens.

    Messages without a token belong to the token of the others.
    """
    tokens: set[str] = set()
    for message in messages[:KEY_SEARCH_LIMIT]:
        try:
            probe = _decode_probe(message)
        except NOT_JSON:
            continue
        tokens.update(filter(None, map(text_or_none, (probe.token, probe.properties.token))))
    if len(tokens) > 1:
        raise Unreadable("all messages of a batch must have the same token; these have several", key=min(tokens))
    return tokens.pop() if tokens else None


def event_of(raw: bytes, opened: OpenedRequest) -> Event:
    """The event of a message to /track or /import."""
    message = object_in(raw, TOKEN)
    event_properties, event_type = message.pop("properties", {}), message.pop("event", None)
    if type(event_properties) is not dict:
        raise Rejected("properties", "must be a JSON object")
    event_properties.pop("token", None)
    time, insert_id = event_properties.pop("time", None), event_properties.pop("$insert_id", None)
    ids = ids_of_event(event_type, event_properties)
    properties = message | {"properties": event_properties} | ids
    return make_event(
        session_id="",
        event_type=event_type,
        event_id=insert_id_or_none(insert_id) or content_id(event_type, properties, time),
        properties=properties,
        **time_arguments(rfc3339_of_time(time), opened),
    )


def profile_of(raw: bytes, opened: OpenedRequest) -> Event:
    """The event of a message to /engage or /groups."""
    message = object_in(raw, TOKEN)
    operation = next((name for name in message if name in OPERATIONS), None)
    if operation is None:
        raise Rejected("", f"has none of {', '.join(sorted(OPERATIONS))}")
    time, insert_id = message.pop("$time", None), message.pop("$insert_id", None)
    ids = ids_of_profile(message)
    properties = message | ids
    return make_event(
        session_id="",
        event_type=operation,
        event_id=insert_id_or_none(insert_id) or content_id(properties, time),
        properties=properties,
        **time_arguments(rfc3339_of_time(time), opened),
    )


def insert_id_or_none(value: Any) -> Any:
    """An insert id as text; None for an empty one.

    A value of any other type is left for make_event to reject.
    """
    return str(value) if type(value) is int else value or None


def rfc3339_of_time(value: Any) -> Any:
    """A time as RFC 3339: SDKs send seconds or milliseconds, also as text.

    Any other value is left for make_event to reject.
    """
    if type(value) is str and value.isascii() and value.isdigit() and len(value) <= 16:
        value = int(value)
    return rfc3339_of_number(value) if type(value) in (int, float) else value


def answer(request: ForeignRequest, opened: OpenedRequest) -> Answer:
    """`1`, or an object if the client sent `verbose=1`."""
    payload: Payload = opened.context
    if payload.fields.get("verbose") == "1":
        return Answer(200, b'{"status":1,"error":null}')
    return Answer(200, b"1", "text/plain")


def answer_import(request: ForeignRequest, opened: OpenedRequest) -> Answer:
    """The answer of /import; a form gets the same answer as from /track.

    Forms come from SDKs that are older than the API's JSON answers.
    """
    payload: Payload = opened.context
    if payload.is_form:
        return answer(request, opened)
    return Answer(200, _encode({"code": 200, "num_records_imported": len(opened.messages), "status": "OK"}))


# Those of Mixpanel's server SDKs that send again do so only after a 5xx.
EVENTS = Format(name="mixpanel", open=open_request, event_of=event_of, answer=answer, status_when_limited=503)
PROFILES = Format(name="mixpanel", open=open_request, event_of=profile_of, answer=answer, status_when_limited=503)
IMPORT = Format(name="mixpanel", open=open_request, event_of=event_of, answer=answer_import, status_when_limited=503)
