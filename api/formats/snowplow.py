"""Snowplow's tracker protocol: a batch by POST, or one event as the query of a pixel.

https://docs.snowplow.io/docs/sources/trackers/snowplow-tracker-protocol/. Nothing in it is a key: one may stand before the path,
and while AUTH is open the application id, `aid`, is the tenant's name. An event's `eid` is its event_id, and its event_type is
what Snowplow calls it in its own tables: that of the schema for an event that describes itself, else one of NAMES. What is
encoded in it is decoded into its properties, as `unstruct_event` and `contexts`; the rest stays under the protocol's names.
"""

import base64
from collections.abc import Sequence
from typing import Any

import msgspec

from api.formats.clock_skew import timed
from api.formats.format import Answer, Envelope, Format, Parts, Unreadable, asked
from api.formats.forms import fields_of
from api.formats.ids import content_name, text_or_none
from api.formats.messages import named_without, object_in
from api.formats.snowplow_fields import decoded, identity_in, ids_of, moment_of, session_of
from streams import Event, make_event

TRANSPORT = ("stm",)
UNSTRUCT = "unstruct"
NAMES = {
    "pv": "page_view",
    "pp": "page_ping",
    "se": "struct",
    "ue": UNSTRUCT,
    "tr": "transaction",
    "ti": "transaction_item",
}
PIXEL = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")  # a transparent GIF


class Batch(msgspec.Struct):
    """A batch."""

    data: list[msgspec.Raw]


class Application(msgspec.Struct):
    """Which application an event is of."""

    aid: Any = None


_decode_batch = msgspec.json.Decoder(Batch).decode
_decode_application = msgspec.json.Decoder(Application).decode
_encode = msgspec.json.Encoder(order="sorted").encode


def open_batch(parts: Parts) -> Envelope:
    """The events of a batch."""
    try:
        messages = [bytes(raw) for raw in _decode_batch(parts.body).data]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"the body is no payload of Snowplow's: {error}") from None
    return enveloped(messages, parts)


def open_pixel(parts: Parts) -> Envelope:
    """The event that a query is."""
    return enveloped([_encode(fields_of(parts.query))], parts)


def enveloped(messages: Sequence[bytes], parts: Parts) -> Envelope:
    """Messages and whose they are: the path's key says it, or else their application, if they are of one."""
    return Envelope(messages, parts.received_at_us, parts.path.get("key"), name=application_of(messages))


def application_of(messages: Sequence[bytes]) -> str | None:
    """The application of all messages; None if they are of several."""
    found: set[str | None] = set()
    for message in asked(messages):
        try:
            found.add(text_or_none(_decode_application(message).aid))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
    return found.pop() if len(found) == 1 else None


def event_of(raw: bytes, envelope: Envelope) -> Event:
    """The event that a message is."""
    message = object_in(raw)
    timestamp, clock = moment_of(message, envelope.received_at_us)
    kind, name = message.pop("e", None), text_or_none(message.pop("eid", None))
    described, contexts = decoded(message, "ue_pr", "ue_px"), decoded(message, "co", "cx")
    session_id = session_of(message, contexts)  # before ids_of, which takes the visitor out
    properties = message | ids_of(message, contexts)
    if described is not None:
        properties["unstruct_event"] = described
    if contexts is not None:
        properties["contexts"] = contexts
    event_type = NAMES.get(kind, kind) if type(kind) is str else kind
    if event_type == UNSTRUCT:
        event_type = identity_in(described)
    return make_event(
        session_id=session_id,
        event_type=event_type,
        event_id=name or content_name(kind, session_id, timestamp, properties),
        properties=properties,
        **timed(timestamp, msgspec.structs.replace(envelope, clock_us=clock)),
    )


def answer(parts: Parts, envelope: Envelope) -> Answer:
    """What a collector answers to a batch."""
    return Answer(200, b"ok", "text/plain")


def answer_pixel(parts: Parts, envelope: Envelope) -> Answer:
    """The pixel that a page asked for."""
    return Answer(200, PIXEL, "image/gif")


named_by = named_without(TRANSPORT)
BATCH = Format(name="snowplow", open=open_batch, event_of=event_of, answer=answer, named_by=named_by, again=503)
PIXELS = Format(name="snowplow", open=open_pixel, event_of=event_of, answer=answer_pixel, named_by=named_by, again=503)
