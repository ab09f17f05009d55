"""Amplitude's HTTP API V2 and its batch, which are the same.

https://amplitude.com/docs/apis/analytics/http-v2. An event is named by its `insert_id` together with its `device_id`, as each
device makes its own. Its `session_id`, a time in milliseconds, is its session, and -1 none. `device_id` is the anonymous_id.
"""

from typing import Any

import msgspec
from msgspec.structs import replace

from api.formats import posthog
from api.formats.clock_skew import clock_of, text_of, timed
from api.formats.format import Answer, Envelope, Format, Parts, Unreadable
from api.formats.ids import content_name, id_of, text_or_none
from api.formats.messages import object_in
from api.schemas import Refusal
from streams import NAME_LIMIT_BYTES, Event, Rejected, make_event

NO_SESSION = "-1"
IDS = ("session_id", "insert_id", "user_id", "device_id")


class Upload(msgspec.Struct):
    """A request. Browsers say when they sent it."""

    events: list[msgspec.Raw]
    api_key: Any = None
    client_upload_time: Any = None


class Kind(msgspec.Struct):
    """What tells an upload from others' batches."""

    events: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode_upload = msgspec.json.Decoder(Upload).decode
_decode_kind = msgspec.json.Decoder(Kind).decode
_encode = msgspec.json.Encoder().encode


def open_request(parts: Parts) -> Envelope:
    """The events of a request."""
    try:
        upload = _decode_upload(parts.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"the body is no upload of Amplitude's: {error}") from None
    clock_us = clock_of(upload.client_upload_time, parts.received_at_us)
    return Envelope([bytes(raw) for raw in upload.events], parts.received_at_us, text_or_none(upload.api_key), clock_us)


def event_of(raw: bytes, envelope: Envelope) -> Event:
    """The event that a message is."""
    message = object_in(raw)
    event_type, moment = message.pop("event_type", None), message.pop("time", None)
    session, insert_id, user_id, device_id = (id_of(name, message.pop(name, None)) for name in IDS)
    if moment and type(moment) is not int:
        raise Rejected("time", "must be milliseconds since 1970, a whole number")
    name = (
        event_identity(insert_id, device_id)
        if insert_id
        else content_name(message, event_type, session, moment, user_id, device_id)
    )
    actor = {"user_id": user_id, "anonymous_id": device_id}
    return make_event(
        session_id="" if session in (None, NO_SESSION) else session,
        event_type=event_type,
        event_id=name,
        properties=message | {ours: theirs for ours, theirs in actor.items() if theirs},
        **timed(text_of(moment * 1_000) if moment else None, envelope),
    )


def event_identity(insert_id: str, device_id: str | None) -> str:
    """One name for each pair of ids: where the first ends is said. Pairs too long for a name are named by their hash."""
    joined = f"{len(insert_id)}:{insert_id}:{device_id or ''}"
    return joined if len(joined.encode()) <= NAME_LIMIT_BYTES else content_name(insert_id, device_id)


def answer(parts: Parts, envelope: Envelope) -> Answer:
    """What the SDKs take for success: without `code` they send again."""
    told = {
        "code": 200,
        "events_ingested": len(envelope.messages),
        "payload_size_bytes": len(parts.body),
        "server_upload_time": parts.received_at_us // 1_000,
    }
    return Answer(200, _encode(told))


def refuse(refusal: Refusal) -> Refusal:
    """What ends the resends of what can never go in: after any other 400 the SDKs send again."""
    if refusal.code not in (400, 401, 403, 410):
        return refusal
    if refusal.error == "not-understood":
        return replace(refusal, code=400, missing_field="events")
    return replace(refusal, code=400, error=f"Invalid API key: {refusal.error}", missing_field="api_key")


AMPLITUDE = Format(name="amplitude", open=open_request, event_of=event_of, answer=answer, refuse=refuse)


def choose(parts: Parts) -> Format:
    """Amplitude's, for everything."""
    return AMPLITUDE


def choose_batch(parts: Parts) -> Format:
    """Amplitude's or PostHog's, who both have this path: the former call theirs events."""
    try:
        return AMPLITUDE if _decode_kind(parts.body).events is not msgspec.UNSET else posthog.POSTHOG
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return posthog.POSTHOG
