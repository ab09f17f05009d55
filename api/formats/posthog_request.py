"""The requests of PostHog's SDKs: a batch, a list, or an event. Pure.

Each of them comes as JSON, or as JSON or its base64 in a form.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from api.formats.clock_skew import clock_skew_us, rfc3339_of
from api.formats.format import ForeignRequest, OpenedRequest, Unreadable
from api.formats.forms import fields_of, json_in
from api.formats.ids import text_or_none
from api.formats.messages import NOT_JSON
from streams import Rejected

KEY_SEARCH_LIMIT = 100  # events in which a key is searched


class BatchOrEvent(msgspec.Struct):
    """A batch, or, where it has no `batch`, an event."""

    batch: list[msgspec.Raw] | None = None
    api_key: Any = None
    token: Any = None
    sent_at: Any = None


class Properties(msgspec.Struct):
    """An event's properties, where browsers send the key."""

    token: Any = None


class KeyProbe(msgspec.Struct):
    """The places in an event where a key may stand."""

    properties: Properties
    api_key: Any = None


_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_batch_or_event = msgspec.json.Decoder(BatchOrEvent).decode
_decode_probe = msgspec.json.Decoder(KeyProbe).decode


def open_request(request: ForeignRequest) -> OpenedRequest:
    """The events of a request."""
    query = fields_of(request.query, errors="replace")
    body = request.body.strip()
    if body[:1] not in (b"{", b"["):
        body = json_in(fields_of(body, errors="replace").get("data", ""))
    try:
        if body.startswith(b"["):
            messages, content = [bytes(raw) for raw in _decode_list(body)], BatchOrEvent()
        else:
            content = _decode_batch_or_event(body)
            messages = [body] if content.batch is None else [bytes(raw) for raw in content.batch]
    except NOT_JSON as error:
        raise Unreadable(f"the body is not a request of a PostHog SDK: {error}") from None
    sent_at = content.sent_at or sent_at_in_query(query.get("_", ""))
    key = text_or_none(content.api_key) or text_or_none(content.token) or key_among(messages)
    return OpenedRequest(messages, request.received_at_us, key, clock_skew_us(sent_at, request.received_at_us))


def key_among(messages: Sequence[bytes]) -> str | None:
    """The first key in the first events; unreadable events are skipped."""
    for message in messages[:KEY_SEARCH_LIMIT]:
        with suppress(*NOT_JSON):
            probe = _decode_probe(message)
            if key := text_or_none(probe.properties.token) or text_or_none(probe.api_key):
                return key
    return None


def sent_at_in_query(milliseconds: str) -> str:
    """When posthog-js sent a request, as RFC 3339; empty if unknown."""
    try:
        return rfc3339_of(int(milliseconds) * 1_000)
    except (ValueError, Rejected):
        return ""
