"""PostHog's capture API: what an event of its SDKs means; `posthog_request` says how they wrap it.

https://posthog.com/docs/api/capture. An event's `uuid` is its event_id, `properties.$session_id` its session. Its distinct_id is
its user_id, unless the event is an anonymous one, as its SDK says: `$is_identified` or `$process_person_profile` is false, or
the distinct_id is the `$device_id`. Then it is the anonymous_id. `$identify` links it with `$anon_distinct_id`, `$create_alias`
with `alias`: there it is always a user's. What all have for it who may not be known, or what the Node SDK
makes of a group's name, is nobody's.
"""

from typing import Any

from api.formats.clock_skew import timed
from api.formats.format import Answer, Envelope, Format, Parts
from api.formats.ids import content_name, id_of
from api.formats.messages import named_without, object_in
from api.formats.posthog_request import open_request
from streams import Event, Rejected, make_event

LINKS = {"$identify": ("$anon_distinct_id", "anonymous_id"), "$create_alias": ("alias", "previous_id")}
LINKS["$merge_dangerously"] = LINKS["$create_alias"]
NOBODY = "$posthog_cookieless"
TRANSPORT = ("api_key", "token", "sent_at", "historical_migration")
TEN_YEARS_MS = 3_650 * 86_400_000


def event_of(raw: bytes, envelope: Envelope) -> Event:
    """The event that a message is."""
    message = object_in(raw, TRANSPORT)
    offset = message.pop("offset", None)
    properties = message.get("properties") or {}
    if type(properties) is not dict:
        raise Rejected("properties", "must be a JSON object")
    event_type, timestamp = message.pop("event", None), message.pop("timestamp", None)
    name, distinct_id = message.pop("uuid", None), message.pop("distinct_id", None) or properties.get("distinct_id")
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
    if distinct_id in (None, NOBODY, f"${properties.get('$group_type')}_{properties.get('$group_key')}"):
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


POSTHOG = Format(
    name="posthog",
    open=open_request,
    event_of=event_of,
    named_by=named_without(TRANSPORT),
    answer=lambda parts, envelope: Answer(200, b'{"status":1}'),
    again=503,  # browsers drop what is answered 429
)


def choose(parts: Parts) -> Format:
    """PostHog's, for everything."""
    return POSTHOG
