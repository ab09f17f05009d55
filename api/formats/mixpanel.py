"""Mixpanel's ingestion API: events, profiles of users and groups, and imports, from its SDKs of any age.

https://docs.mixpanel.com/docs/tracking-methods. An event's `$insert_id` is its event_id, its name its event_type; its properties
stay in `properties`. A profile's change is an event, too: its event_type is the operation, `$set` and so on, and its content is
its id, since it has none. A batch is of one token: whose events they are otherwise, nobody could say, so it is refused.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from api.formats.clock_skew import text_of_number, timed
from api.formats.format import Answer, Envelope, Format, Parts, Unreadable, asked
from api.formats.forms import Sent, messages_in, sent_in
from api.formats.ids import content_name, text_or_none
from api.formats.messages import object_in
from api.formats.mixpanel_ids import ids_of, ids_of_profile
from streams import Event, Rejected, make_event

TOKEN = ("$token",)
OPERATIONS = frozenset({"$set", "$set_once", "$add", "$append", "$union", "$remove", "$unset", "$delete"})


class Inner(msgspec.Struct, frozen=True):
    """What an event's properties say of whose they are."""

    token: Any = None


class Outer(msgspec.Struct, frozen=True):
    """The same of an event or a profile."""

    properties: Inner = Inner()
    token: Any = msgspec.field(name="$token", default=None)


_decode_outer = msgspec.json.Decoder(Outer).decode
_encode = msgspec.json.Encoder().encode


def open_request(parts: Parts) -> Envelope:
    """The messages of a request."""
    sent = sent_in(parts)
    messages = messages_in(sent.json)
    return Envelope(messages, parts.received_at_us, token_of(messages), context=sent)


def token_of(messages: Sequence[bytes]) -> str | None:
    """The token of all messages; one that has none goes with its neighbours."""
    found: set[str] = set()
    for message in asked(messages):
        try:
            outer = _decode_outer(message)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        found.update(filter(None, map(text_or_none, (outer.token, outer.properties.token))))
    if len(found) > 1:
        raise Unreadable("the messages of a batch are of one token; these are of several", key=min(found))
    return found.pop() if found else None


def event_of(raw: bytes, envelope: Envelope) -> Event:
    """The event that a message of /track or /import is."""
    message = object_in(raw, TOKEN)
    inner, event_type = message.pop("properties", {}), message.pop("event", None)
    if type(inner) is not dict:
        raise Rejected("properties", "must be a JSON object")
    inner.pop("token", None)
    when, name = inner.pop("time", None), inner.pop("$insert_id", None)
    ids = ids_of(event_type, inner)
    properties = message | {"properties": inner} | ids
    return make_event(
        session_id="",
        event_type=event_type,
        event_id=named(name) or content_name(event_type, properties, when),
        properties=properties,
        **timed(text_of_time(when), envelope),
    )


def profile_of(raw: bytes, envelope: Envelope) -> Event:
    """The event that a message of /engage or /groups is."""
    message = object_in(raw, TOKEN)
    operation = next((name for name in message if name in OPERATIONS), None)
    if operation is None:
        raise Rejected("", f"holds none of {', '.join(sorted(OPERATIONS))}")
    when, name = message.pop("$time", None), message.pop("$insert_id", None)
    ids = ids_of_profile(message)
    properties = message | ids
    return make_event(
        session_id="",
        event_type=operation,
        event_id=named(name) or content_name(properties, when),
        properties=properties,
        **timed(text_of_time(when), envelope),
    )


def named(name: Any) -> str | None:
    """An id as text, None for none; only of what is no id, make_event will say so."""
    return str(name) if type(name) is int else name or None


def text_of_time(value: Any) -> Any:
    """A time as RFC 3339: SDKs send seconds or milliseconds, some of them as text. Of what is no time, make_event will say so."""
    if type(value) is str and value.isascii() and value.isdigit() and len(value) <= 16:
        value = int(value)
    return text_of_number(value) if type(value) in (int, float) else value


def answer(parts: Parts, envelope: Envelope) -> Answer:
    """1, or what is asked for with `verbose`."""
    sent: Sent = envelope.context
    if sent.fields.get("verbose") == "1":
        return Answer(200, b'{"status":1,"error":null}')
    return Answer(200, b"1", "text/plain")


def answer_import(parts: Parts, envelope: Envelope) -> Answer:
    """What /import answers: to a form as it did when there were only forms."""
    sent: Sent = envelope.context
    if sent.is_form:
        return answer(parts, envelope)
    return Answer(200, _encode({"code": 200, "num_records_imported": len(envelope.messages), "status": "OK"}))


# Of Mixpanel's SDKs for servers, those that send again do so for 5xx only.
EVENTS = Format(name="mixpanel", open=open_request, event_of=event_of, answer=answer, again=503)
PROFILES = Format(name="mixpanel", open=open_request, event_of=profile_of, answer=answer, again=503)
IMPORT = Format(name="mixpanel", open=open_request, event_of=event_of, answer=answer_import, again=503)
