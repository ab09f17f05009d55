"""CloudEvents 1.0 over HTTP: structured, batched, binary. A binary event is opened into a structured one.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md. `source` and `id` name the event,
`type` is its type, the extension `sessionid`, else `subject`, its session; all other attributes and its data are its properties.
"""

import base64
import binascii
import hashlib
import re
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from api.formats.clock_skew import timed
from api.formats.format import Answer, Envelope, Format, Parts, Unreadable
from api.formats.ids import text_of_id
from api.formats.messages import object_in
from streams import NAME_LIMIT_BYTES, Event, Rejected, make_event

CONTENT_TYPE, PREFIX = b"content-type", b"ce-"
DATA = ("data", "data_base64")

_raw_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_check_json = msgspec.json.Decoder(msgspec.Raw).decode
_encode = msgspec.json.Encoder(order="deterministic").encode
_is_json = re.compile(r"[^/;]+/(?:[^/;]+\+)?json *(?:;|$)", re.IGNORECASE).match
_is_text = re.compile(r"(?:text/|[^/;]+/(?:[^/;]+\+)?xml *(?:;|$))", re.IGNORECASE).match
_quoted_pair = re.compile(rb"\\(.)", re.DOTALL)


def open_request(parts: Parts) -> Envelope:
    """The events of a request, each as JSON. Headers are attributes only of a body that is not CloudEvents' JSON itself."""
    structured = parts.headers.get(CONTENT_TYPE, b"").lower().startswith(b"application/cloudevents")
    if not structured and (b"ce-id" in parts.headers or b"ce-specversion" in parts.headers):
        return Envelope([_encode(_structured(parts))], parts.received_at_us)
    try:
        if parts.body.lstrip()[:1] == b"[":
            return Envelope([bytes(raw) for raw in _raw_items(parts.body)], parts.received_at_us)
        return Envelope([bytes(_check_json(parts.body))], parts.received_at_us)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"the body is no CloudEvent in JSON: {error}") from None


def _structured(parts: Parts) -> dict[str, Any]:
    """A binary event as a structured one."""
    found = {
        name[len(PREFIX) :].decode("latin-1"): _attribute(name, value)
        for name, value in parts.headers.items()
        if name.startswith(PREFIX)
    }
    event: dict[str, Any] = {name: value for name, value in found.items() if name not in DATA}
    kind = parts.headers.get(CONTENT_TYPE, b"").decode("latin-1").strip()
    if kind:
        event["datacontenttype"] = kind
    return event | _data(parts.body, kind) if parts.body else event


def _attribute(name: bytes, value: bytes) -> str:
    """An attribute from its header: what was quoted, then what was percent-encoded."""
    if len(value) > 1 and value[:1] == value[-1:] == b'"':
        value = _quoted_pair.sub(rb"\1", value[1:-1])
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        raise Unreadable(f"the header {name.decode('latin-1')} is not UTF-8, percent-encoded") from None


def _data(body: bytes, kind: str) -> dict[str, Any]:
    """A body by its type: JSON, else text, else base64. What says that it is JSON and is none is kept as what it is."""
    try:
        if not kind or _is_json(kind):
            return {"data": _check_json(body)}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    try:
        if not kind or _is_json(kind) or _is_text(kind):
            return {"data": body.decode()}
    except UnicodeDecodeError:
        pass
    return {"data_base64": base64.b64encode(body).decode()}


def event_of(raw: bytes, envelope: Envelope) -> Event:
    """The event that a structured CloudEvent is."""
    event = object_in(raw)
    if event.get("specversion") != "1.0":
        raise Rejected("specversion", 'must be "1.0"')
    if "data_base64" in event:
        _check_base64(event["data_base64"])
    session = event.pop("sessionid", None) or event.pop("subject", None) or ""
    return make_event(
        session_id=text_of_id(session) or session,
        event_type=event.pop("type", None),
        event_id=_name(_required(event, "source"), _required(event, "id")),
        **timed(event.pop("time", None), envelope),
        properties=event,
    )


def _required(event: dict[str, Any], name: str) -> str:
    value = event.get(name)
    if type(value) is not str or not value:
        raise Rejected(name, "is missing" if value is None else "must be a string that is not empty")
    return value


def _name(source: str, id: str) -> str:
    """The event_id, another for each pair: sources are URIs and have no space, so the first one ends them; the name of a pair
    that is too long, or of no such source, has none."""
    joined = f"{source} {id}"
    if " " not in source and len(joined.encode()) <= NAME_LIMIT_BYTES:
        return joined
    return f"sha256:{hashlib.sha256(f'{len(source)}:{source}{id}'.encode()).hexdigest()}"


def _check_base64(text: Any) -> None:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise Rejected("data_base64", "is not base64") from None


CLOUDEVENTS = Format(name="cloudevents", open=open_request, event_of=event_of, answer=lambda parts, envelope: Answer(204))


def choose(parts: Parts) -> Format:
    """CloudEvents in any mode."""
    return CLOUDEVENTS
