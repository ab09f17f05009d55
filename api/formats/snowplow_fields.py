"""What Snowplow's fields mean: when an event happened, whom it is about, in which visit, and what is encoded in it. Pure."""

from typing import Any

from api.formats.base64_text import bytes_in
from api.formats.clock_skew import CLOCK_LIMIT_US, text_of
from streams import Rejected, decode_json

CLIENT_SESSION = "iglu:com.snowplowanalytics.snowplow/client_session/"


def moment_of(message: dict[str, Any], received_at_us: int) -> tuple[str, int]:
    """When an event happened, and by how much the device's clock is behind ours: what says so is taken out. A true timestamp is
    no device's, and right."""
    true, device, sent = message.pop("ttm", None), message.pop("dtm", None), message.pop("stm", None)
    if true not in (None, ""):
        return text_of(microseconds_in("ttm", true)), 0
    if device in (None, ""):
        return "", 0
    text = text_of(microseconds_in("dtm", device))
    try:
        clock_us = received_at_us - microseconds_in("stm", sent)
    except Rejected:
        return text, 0
    return text, clock_us if abs(clock_us) <= CLOCK_LIMIT_US else 0


def microseconds_in(field: str, text: Any) -> int:
    """Milliseconds, which Snowplow sends as text."""
    try:
        return int(text) * 1_000
    except (TypeError, ValueError):
        raise Rejected(field, "must be milliseconds since 1970") from None


def decoded(message: dict[str, Any], plain: str, packed: str) -> Any:
    """What describes itself in a message, as JSON or base64 of it, without the envelope around it; None if there is nothing."""
    text, base64 = message.pop(plain, None), message.pop(packed, None)
    field = packed if base64 else plain
    try:
        found = decode_json(bytes_in(base64) if base64 else text.encode()) if base64 or text else None
    except (AttributeError, ValueError):
        raise Rejected(field, "is no text, or its base64 is damaged") from None
    except Rejected as error:
        raise Rejected(field, error.reason) from None
    if found is not None and (type(found) is not dict or "data" not in found):
        raise Rejected(field, "must be an object with schema and data")
    return found and found["data"]


def identity_in(described: Any) -> str:
    """The name in a schema: link_click in iglu:com.snowplowanalytics.snowplow/link_click/jsonschema/1-0-1."""
    schema = described.get("schema") if type(described) is dict else None
    parts = schema.split("/") if type(schema) is str else []
    if len(parts) != 4 or not parts[1]:
        raise Rejected("ue_pr", "must name its schema: iglu:vendor/name/format/version")
    return str(parts[1])


def session_of(message: dict[str, Any], contexts: Any) -> str:
    """The visit that an event is of, taken out of the message: `sid`, or the session of a mobile tracker's context; of trackers
    that count visits and name none, the visitor and the number, joined by a dot. Empty for none."""
    visitor, visit = message.get("duid"), message.get("vid")
    counted = f"{visitor}.{visit}" if visitor and visit else ""
    return str(message.pop("sid", None) or client_session_in(contexts).get("sessionId") or counted)


def ids_of(message: dict[str, Any], contexts: Any) -> dict[str, str]:
    """Whom an event is about, under our names, taken out of the message. A visitor is known to the page's domain, or else to the
    collector's, or as a device."""
    user, visitor = message.pop("uid", None), message.pop("duid", None)
    if not visitor:
        visitor = message.pop("nuid", None) or client_session_in(contexts).get("userId")
    found = {"user_id": user, "anonymous_id": visitor}
    return {name: str(value) for name, value in found.items() if value not in (None, "")}


def client_session_in(contexts: Any) -> dict[str, Any]:
    """The session that mobile trackers send among their contexts."""
    for context in contexts if type(contexts) is list else []:
        if type(context) is dict and str(context.get("schema")).startswith(CLIENT_SESSION):
            data = context.get("data")
            return data if type(data) is dict else {}
    return {}
