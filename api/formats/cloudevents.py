"""CloudEvents 1.0 over HTTP: structured, batched and binary.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md. A binary event is first made into a
structured one. `source` and `id` together are the event_id, `type` is the event_type. The session is the extension `sessionid`,
or else `subject`. All other attributes, and the data, are properties.
"""

import base64
import binascii
import hashlib
import re
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from api.formats.clock_skew import time_arguments
from api.formats.format import Answer, ForeignRequest, Format, OpenedRequest, Unreadable
from api.formats.ids import id_or_empty
from api.formats.messages import NOT_JSON, object_in
from streams import Event, Rejected, make_event
from streams.validation import NAME_LIMIT_BYTES

CONTENT_TYPE, PREFIX = b"content-type", b"ce-"
DATA = ("data", "data_base64")

_raw_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_check_json = msgspec.json.Decoder(msgspec.Raw).decode
_encode = msgspec.json.Encoder(order="deterministic").encode
_is_json = re.compile(r"[^/;]+/(?:[^/;]+\+)?json *(?:;|$)", re.IGNORECASE).match
_is_text = re.compile(r"(?:text/|[^/;]+/(?:[^/;]+\+)?xml *(?:;|$))", re.IGNORECASE).match
_quoted_pair = re.compile(rb"\\(.)", re.DOTALL)


def open_request(request: ForeignRequest) -> OpenedRequest:
    """The events of a request, each as JSON.

    Headers are attributes only if the body is not itself a CloudEvent in JSON.
    """
    is_structured = request.headers.get(CONTENT_TYPE, b"").lower().startswith(b"application/cloudevents")
    if not is_structured and (b"ce-id" in request.headers or b"ce-specversion" in request.headers):
        return OpenedRequest([_encode(_structured(request))], request.received_at_us)
    try:
        if request.body.lstrip()[:1] == b"[":
            return OpenedRequest([bytes(raw) for raw in _raw_items(request.body)], request.received_at_us)
        return OpenedRequest([bytes(_check_json(request.body))], request.received_at_us)
    except NOT_JSON as error:
        raise Unreadable(f"the body is not a CloudEvent in JSON: {error}") from None


def _structured(request: ForeignRequest) -> dict[str, Any]:
    """A binary event as a structured event."""
    attributes = {
        name[len(PREFIX) :].decode("latin-1"): _attribute(name, value)
        for name, value in request.headers.items()
        if name.startswith(PREFIX)
    }
    event: dict[str, Any] = {name: value for name, value in attributes.items() if name not in DATA}
    content_type = request.headers.get(CONTENT_TYPE, b"").decode("latin-1").strip()
    if content_type:
        event["datacontenttype"] = content_type
    return event | _data(request.body, content_type) if request.body else event


def _attribute(name: bytes, value: bytes) -> str:
    """An attribute from its header: unquoted, then percent-decoded."""
    if len(value) > 1 and value[:1] == value[-1:] == b'"':
        value = _quoted_pair.sub(rb"\1", value[1:-1])
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        raise Unreadable(f"the header {name.decode('latin-1')} is not percent-encoded UTF-8") from None


def _data(body: bytes, content_type: str) -> dict[str, Any]:
    """The data of a binary event: JSON, else text, else base64.

    A body that claims to be JSON and is not is kept as text or base64.
    """
    try:
        if not content_type or _is_json(content_type):
            return {"data": _check_json(body)}
    except NOT_JSON:
        pass
    try:
        if not content_type or _is_json(content_type) or _is_text(content_type):
            return {"data": body.decode()}
    except UnicodeDecodeError:
        pass
    return {"data_base64": base64.b64encode(body).decode()}


def event_of(raw: bytes, opened: OpenedRequest) -> Event:
    """The event of a structured CloudEvent."""
    event = object_in(raw)
    if event.get("specversion") != "1.0":
        raise Rejected("specversion", 'must be "1.0"')
    if "data_base64" in event:
        _check_base64(event["data_base64"])
    session_id = event.pop("sessionid", None) or event.pop("subject", None) or ""
    return make_event(
        session_id=id_or_empty(session_id) or session_id,
        event_type=event.pop("type", None),
        event_id=_event_id(_required(event, "source"), _required(event, "id")),
        **time_arguments(event.pop("time", None), opened),
        properties=event,
    )


def _required(event: dict[str, Any], name: str) -> str:
    value = event.get(name)
    if type(value) is not str or not value:
        raise Rejected(name, "is missing" if value is None else "must be a string that is not empty")
    return value


def _event_id(source: str, id: str) -> str:
    """A different event_id for each pair of source and id.

    A source is a URI, which has no space, so the first space ends it. A pair that is too long, or whose source has a space, is
    replaced by its hash, which has no space.
    """
    pair = f"{source} {id}"
    if " " not in source and len(pair.encode()) <= NAME_LIMIT_BYTES:
        return pair
    return f"sha256:{hashlib.sha256(f'{len(source)}:{source}{id}'.encode()).hexdigest()}"


def _check_base64(text: Any) -> None:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise Rejected("data_base64", "is not base64") from None


CLOUDEVENTS = Format(name="cloudevents", open=open_request, event_of=event_of, answer=lambda request, opened: Answer(204))


def choose(request: ForeignRequest) -> Format:
    """CloudEvents, in every mode."""
    return CLOUDEVENTS
