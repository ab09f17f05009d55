"""Snowplow's tracker protocol: a batch by POST, or an event in a query.

https://docs.snowplow.io/docs/sources/trackers/snowplow-tracker-protocol/. The protocol has no key. A key may stand before the
path; while AUTH is open, the application id `aid` names the tenant. An event's `eid` is its event_id. Its event_type is the name
that Snowplow's own tables use: the name in the schema of a self-describing event, else the entry in EVENT_TYPES. Encoded JSON is
decoded into the properties `unstruct_event` and `contexts`; all other fields keep the protocol's names.
"""

import base64
from collections.abc import Sequence
from typing import Any

import msgspec

from api.formats.clock_skew import time_arguments
from api.formats.format import KEY_SEARCH_LIMIT, Answer, ForeignRequest, Format, OpenedRequest, Unreadable
from api.formats.forms import fields_of
from api.formats.ids import content_id, text_or_none
from api.formats.messages import NOT_JSON, identity_without, object_in
from api.formats.snowplow_fields import name_in_schema, take_ids, take_json, take_session, take_time
from streams import Event, make_event

TRANSPORT = ("stm",)
SELF_DESCRIBING = "unstruct"
EVENT_TYPES = {
    "pv": "page_view",
    "pp": "page_ping",
    "se": "struct",
    "ue": SELF_DESCRIBING,
    "tr": "transaction",
    "ti": "transaction_item",
}
PIXEL = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")  # a transparent GIF


class Batch(msgspec.Struct):
    """A batch."""

    data: list[msgspec.Raw]


class ApplicationProbe(msgspec.Struct):
    """The application id of an event."""

    aid: Any = None


_decode_batch = msgspec.json.Decoder(Batch).decode
_decode_probe = msgspec.json.Decoder(ApplicationProbe).decode
_encode = msgspec.json.Encoder(order="sorted").encode


def open_batch(request: ForeignRequest) -> OpenedRequest:
    """The events of a batch."""
    try:
        messages = [bytes(raw) for raw in _decode_batch(request.body).data]
    except NOT_JSON as error:
        raise Unreadable(f"the body is not a Snowplow payload: {error}") from None
    return _opened(messages, request)


def open_pixel(request: ForeignRequest) -> OpenedRequest:
    """The event in a query."""
    return _opened([_encode(fields_of(request.query))], request)


def _opened(messages: Sequence[bytes], request: ForeignRequest) -> OpenedRequest:
    key = request.path.get("key")
    return OpenedRequest(messages, request.received_at_us, key, open_tenant=application_of(messages))


def application_of(messages: Sequence[bytes]) -> str | None:
    """The application id of all messages; None if they have several."""
    applications: set[str | None] = set()
    for message in messages[:KEY_SEARCH_LIMIT]:
        try:
            applications.add(text_or_none(_decode_probe(message).aid))
        except NOT_JSON:
            continue
    return applications.pop() if len(applications) == 1 else None


def event_of(raw: bytes, opened: OpenedRequest) -> Event:
    """The event of a message."""
    message = object_in(raw)
    timestamp, skew_us = take_time(message, opened.received_at_us)
    kind, event_id = message.pop("e", None), text_or_none(message.pop("eid", None))
    self_describing, contexts = take_json(message, "ue_pr", "ue_px"), take_json(message, "co", "cx")
    session_id = take_session(message, contexts)  # before take_ids, which removes the visitor
    properties = message | take_ids(message, contexts)
    if self_describing is not None:
        properties["unstruct_event"] = self_describing
    if contexts is not None:
        properties["contexts"] = contexts
    event_type = EVENT_TYPES.get(kind, kind) if type(kind) is str else kind
    if event_type == SELF_DESCRIBING:
        event_type = name_in_schema(self_describing)
    return make_event(
        session_id=session_id,
        event_type=event_type,
        event_id=event_id or content_id(kind, session_id, timestamp, properties),
        properties=properties,
        **time_arguments(timestamp, msgspec.structs.replace(opened, clock_us=skew_us)),
    )


def answer(request: ForeignRequest, opened: OpenedRequest) -> Answer:
    """The answer of a Snowplow collector to a batch."""
    return Answer(200, b"ok", "text/plain")


def answer_pixel(request: ForeignRequest, opened: OpenedRequest) -> Answer:
    """The image that a page loads to send an event."""
    return Answer(200, PIXEL, "image/gif")


BATCH = Format(
    name="snowplow",
    open=open_batch,
    event_of=event_of,
    answer=answer,
    identity_of=identity_without(TRANSPORT),
    status_when_limited=503,
)
PIXELS = msgspec.structs.replace(BATCH, open=open_pixel, answer=answer_pixel)
