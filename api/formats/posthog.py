"""PostHog's capture API: a batch, a list of events, or one; as JSON, or in a form, in base64.

https://posthog.com/docs/api/capture. An event's `uuid` is its event_id, `properties.$session_id` its session. Its distinct_id is
its user_id, unless the event is an anonymous one, as its SDK says: `$is_identified` or `$process_person_profile` is false, or
the distinct_id is the `$device_id`. Then it is the anonymous_id. `$identify` links it with `$anon_distinct_id`, `$create_alias`
with `alias`: there it is always a user's. The distinct_id that all have who may not be known is nobody's.
"""

import base64
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from api.formats.clock import clock_of, text_of, timed
from api.formats.format import Answer, Envelope, Format, Parts, Unreadable
from api.formats.names import content_name, id_of, text_or_none
from streams import Event, Rejected, decode_json, make_event

LINKS = {"$identify": ("$anon_distinct_id", "anonymous_id"), "$create_alias": ("alias", "previous_id")}
LINKS["$merge_dangerously"] = LINKS["$create_alias"]
NOBODY = "$posthog_cookieless"
TRANSPORT = ("api_key", "token", "sent_at", "offset", "historical_migration")
FIELDS = LOOKED_AT = 100
TEN_YEARS_MS = 3_650 * 86_400_000


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


def event_of(raw: bytes, envelope: Envelope) -> Event:
    """The event that a message is."""
    message = decode_json(raw)
    if type(message) is not dict:
        raise Rejected("", "must be a JSON object")
    properties = message.get("properties") or {}
    if type(properties) is not dict:
        raise Rejected("properties", "must be a JSON object")
    event_type, timestamp, offset = message.pop("event", None), message.pop("timestamp", None), message.get("offset")
    name, distinct_id = message.pop("uuid", None), message.pop("distinct_id", None) or properties.get("distinct_id")
    for transport in TRANSPORT:
        message.pop(transport, None)
    properties.pop("token", None)
    return make_event(
        session_id=id_of("$session_id", properties.get("$session_id")) or "",
        event_type=event_type,
        event_id=name or content_name(message, event_type, distinct_id, timestamp, offset),
        properties=message | actor_of(event_type, id_of("distinct_id", distinct_id), properties),
        **_timed(timestamp, offset, properties, envelope),
    )


def actor_of(event_type: Any, distinct_id: str | None, properties: dict[str, Any]) -> dict[str, str]:
    """Whom an event is about, under our names."""
    if distinct_id in (None, NOBODY):
        return {}
    if type(event_type) is str and event_type in LINKS:
        theirs, ours = LINKS[event_type]
        other = id_of(theirs, properties.get(theirs))
        return {"user_id": distinct_id} | ({ours: other} if other and other != distinct_id else {})
    is_anonymous = (
        properties.get("$is_identified") is False
        or properties.get("$process_person_profile") is False
        or distinct_id == properties.get("$device_id")
    )
    return {"anonymous_id" if is_anonymous else "user_id": distinct_id}


def _timed(timestamp: Any, offset: Any, properties: dict[str, Any], envelope: Envelope) -> dict[str, Any]:
    """When an event happened: what it says, or the milliseconds before its sending, which posthog-js counts instead."""
    if timestamp and properties.get("$ignore_sent_at") is True:
        return {"timestamp": timestamp}
    when = timed(timestamp, envelope)
    if not timestamp and type(offset) in (int, float) and 0 <= offset < TEN_YEARS_MS:
        when["clock_us"] -= int(offset * 1_000)
    return when


def answer(parts: Parts, envelope: Envelope) -> Answer:
    """What PostHog's SDKs take for success."""
    return Answer(200, b'{"status":1}')


POSTHOG = Format(name="posthog", open=open_request, event_of=event_of, answer=answer, again=503)  # posthog-js drops on 429


def choose(parts: Parts) -> Format:
    """PostHog's, for everything."""
    return POSTHOG
