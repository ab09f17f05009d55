"""Fields of Snowplow's messages: time, session, ids, encoded JSON. Pure.

The `take_` functions remove the fields that they read from the message.
"""

from typing import Any

from api.formats.base64_text import decode_base64
from api.formats.clock_skew import CLOCK_LIMIT_US, rfc3339_of
from streams import Rejected
from streams.validation import decode_json

CLIENT_SESSION = "iglu:com.snowplowanalytics.snowplow/client_session/"


def take_time(message: dict[str, Any], received_at_us: int) -> tuple[str, int]:
    """When an event happened, and by how many microseconds the clock is slow.

    A true timestamp, `ttm`, comes from no device, so it needs no correction.
    """
    true, device, sent = message.pop("ttm", None), message.pop("dtm", None), message.pop("stm", None)
    if true not in (None, ""):
        return rfc3339_of(microseconds_in("ttm", true)), 0
    if device in (None, ""):
        return "", 0
    timestamp = rfc3339_of(microseconds_in("dtm", device))
    try:
        skew_us = received_at_us - microseconds_in("stm", sent)
    except Rejected:
        return timestamp, 0
    return timestamp, skew_us if abs(skew_us) <= CLOCK_LIMIT_US else 0


def microseconds_in(field: str, text: Any) -> int:
    """Microseconds, from the milliseconds that Snowplow sends as text."""
    try:
        return int(text) * 1_000
    except (TypeError, ValueError):
        raise Rejected(field, "must be milliseconds since 1970") from None


def take_json(message: dict[str, Any], plain_field: str, base64_field: str) -> Any:
    """The data of a self-describing JSON, without its envelope.

    It stands in one field as JSON, or in another as its base64; None if in neither. Raises Rejected.
    """
    text, base64 = message.pop(plain_field, None), message.pop(base64_field, None)
    field = base64_field if base64 else plain_field
    try:
        envelope = decode_json(decode_base64(base64) if base64 else text.encode()) if base64 or text else None
    except (AttributeError, ValueError):
        raise Rejected(field, "is not text, or its base64 is damaged") from None
    except Rejected as error:
        raise Rejected(field, error.reason) from None
    if envelope is not None and (type(envelope) is not dict or "data" not in envelope):
        raise Rejected(field, "must be an object with schema and data")
    return envelope and envelope["data"]


def name_in_schema(self_describing: Any) -> str:
    """The name in the schema of a self-describing event.

    It is link_click in iglu:com.snowplowanalytics.snowplow/link_click/jsonschema/1-0-1. Raises Rejected.
    """
    schema = self_describing.get("schema") if type(self_describing) is dict else None
    parts = schema.split("/") if type(schema) is str else []
    if len(parts) != 4 or not parts[1]:
        raise Rejected("ue_pr", "must name its schema: iglu:vendor/name/format/version")
    return str(parts[1])


def take_session(message: dict[str, Any], contexts: Any) -> str:
    """The session of an event; empty for none.

    It is `sid`, or the session in a mobile tracker's context. Trackers that only number a visitor's sessions get the visitor and
    the number, joined by a dot.
    """
    visitor, number = message.get("duid"), message.get("vid")
    numbered = f"{visitor}.{number}" if visitor and number else ""
    return str(message.pop("sid", None) or client_session_in(contexts).get("sessionId") or numbered)


def take_ids(message: dict[str, Any], contexts: Any) -> dict[str, str]:
    """The ids of an event, under the names that Penstock uses.

    A visitor has an id of the page's domain, or else of the collector's domain, or else of the device.
    """
    user, visitor = message.pop("uid", None), message.pop("duid", None)
    if not visitor:
        visitor = message.pop("nuid", None) or client_session_in(contexts).get("userId")
    ids = {"user_id": user, "anonymous_id": visitor}
    return {name: str(value) for name, value in ids.items() if value not in (None, "")}


def client_session_in(contexts: Any) -> dict[str, Any]:
    """The session that mobile trackers send among their contexts."""
    for context in contexts if type(contexts) is list else []:
        if type(context) is dict and str(context.get("schema")).startswith(CLIENT_SESSION):
            data = context.get("data")
            return data if type(data) is dict else {}
    return {}
