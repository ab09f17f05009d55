"""Amplitude: its HTTP API V2 and its batch API, which are alike.

https://amplitude.com/docs/apis/analytics/http-v2. An event's `insert_id` and `device_id` together are its event_id, because each
device makes insert ids of its own. `device_id` is the anonymous_id. `session_id` is the session; -1 means none.
"""

from typing import Any

import msgspec
from msgspec.structs import replace

from api.formats import posthog
from api.formats.clock_skew import clock_skew_us, rfc3339_of, time_arguments
from api.formats.format import Answer, ForeignRequest, Format, OpenedRequest, Unreadable
from api.formats.ids import content_id, id_or_none, text_or_none
from api.formats.messages import NOT_JSON, object_in
from api.schemas import Refusal
from streams import Event, Rejected, make_event
from streams.validation import NAME_LIMIT_BYTES

NO_SESSION = "-1"
IDS = ("session_id", "insert_id", "user_id", "device_id")


class Upload(msgspec.Struct):
    """The body of a request. Browsers say when they sent it."""

    events: list[msgspec.Raw]
    api_key: Any = None
    client_upload_time: Any = None


class UploadProbe(msgspec.Struct):
    """The member that only an Amplitude upload has."""

    events: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode_upload = msgspec.json.Decoder(Upload).decode
_decode_probe = msgspec.json.Decoder(UploadProbe).decode
_encode = msgspec.json.Encoder().encode


def open_request(request: ForeignRequest) -> OpenedRequest:
    """The events of a request."""
    try:
        upload = _decode_upload(request.body)
    except NOT_JSON as error:
        raise Unreadable(f"the body is not an Amplitude upload: {error}") from None
    skew_us = clock_skew_us(upload.client_upload_time, request.received_at_us)
    messages = [bytes(raw) for raw in upload.events]
    return OpenedRequest(messages, request.received_at_us, text_or_none(upload.api_key), skew_us)


def event_of(raw: bytes, opened: OpenedRequest) -> Event:
    """The event of a message."""
    message = object_in(raw)
    event_type, moment = message.pop("event_type", None), message.pop("time", None)
    session_id, insert_id, user_id, device_id = (id_or_none(name, message.pop(name, None)) for name in IDS)
    if moment and type(moment) is not int:
        raise Rejected("time", "must be milliseconds since 1970, a whole number")
    event_id = (
        event_id_of(insert_id, device_id)
        if insert_id
        else content_id(message, event_type, session_id, moment, user_id, device_id)
    )
    actor = {"user_id": user_id, "anonymous_id": device_id}
    return make_event(
        session_id="" if session_id in (None, NO_SESSION) else session_id,
        event_type=event_type,
        event_id=event_id,
        properties=message | {name: id for name, id in actor.items() if id},
        **time_arguments(rfc3339_of(moment * 1_000) if moment else None, opened),
    )


def event_id_of(insert_id: str, device_id: str | None) -> str:
    """A different event_id for each pair of ids.

    The length of the first id says where it ends. A pair that is too long is replaced by its hash.
    """
    pair = f"{len(insert_id)}:{insert_id}:{device_id or ''}"
    return pair if len(pair.encode()) <= NAME_LIMIT_BYTES else content_id(insert_id, device_id)


def answer(request: ForeignRequest, opened: OpenedRequest) -> Answer:
    """The answer that SDKs take for success; without `code` they resend."""
    members = {
        "code": 200,
        "events_ingested": len(opened.messages),
        "payload_size_bytes": len(request.body),
        "server_upload_time": request.received_at_us // 1_000,
    }
    return Answer(200, _encode(members))


def refuse(refusal: Refusal) -> Refusal:
    """A refusal that SDKs take for final.

    With `missing_field` they stop; after any other 400 they send the same again.
    """
    if refusal.code not in (400, 401, 403, 410):
        return refusal
    if refusal.error == "not-understood":
        return replace(refusal, code=400, missing_field="events")
    return replace(refusal, code=400, error=f"Invalid API key: {refusal.error}", missing_field="api_key")


AMPLITUDE = Format(name="amplitude", open=open_request, event_of=event_of, answer=answer, refuse=refuse)


def choose(request: ForeignRequest) -> Format:
    """Amplitude, for every request."""
    return AMPLITUDE


def choose_batch(request: ForeignRequest) -> Format:
    """Amplitude or PostHog: both have the path /batch.

    Only Amplitude's body has a member `events`.
    """
    try:
        return AMPLITUDE if _decode_probe(request.body).events is not msgspec.UNSET else posthog.POSTHOG
    except NOT_JSON:
        return posthog.POSTHOG
