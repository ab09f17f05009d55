"""PostHog's capture API: what an event of its SDKs means.

https://posthog.com/docs/api/capture; `posthog_request` reads the request around the events. `uuid` is the event_id, and
`properties.$session_id` the session. The distinct_id is one of three things:

- An anonymous_id, if the SDK says so: `$is_identified` or `$process_person_profile` is false, or it equals `$device_id`.
- No id at all, if it is the constant that SDKs send for visitors who must not be recognised, or a name that the Node SDK makes
  for a group.
- A user_id otherwise, and always in `$identify` and `$create_alias`, which link it with `$anon_distinct_id` or `alias`.
"""

from typing import Any

from api.formats.clock_skew import time_arguments
from api.formats.format import Answer, ForeignRequest, Format, OpenedRequest
from api.formats.ids import content_id, id_or_none
from api.formats.messages import identity_without, object_in
from api.formats.posthog_request import open_request
from streams import Event, Rejected, make_event

LINKS = {"$identify": ("$anon_distinct_id", "anonymous_id"), "$create_alias": ("alias", "previous_id")}
LINKS["$merge_dangerously"] = LINKS["$create_alias"]
COOKIELESS = "$posthog_cookieless"
TRANSPORT = ("api_key", "token", "sent_at", "historical_migration")
TEN_YEARS_MS = 3_650 * 86_400_000


def event_of(raw: bytes, opened: OpenedRequest) -> Event:
    """The event of a message."""
    message = object_in(raw, TRANSPORT)
    offset = message.pop("offset", None)
    properties = message.get("properties") or {}
    if type(properties) is not dict:
        raise Rejected("properties", "must be a JSON object")
    event_type, timestamp = message.pop("event", None), message.pop("timestamp", None)
    uuid, distinct_id = message.pop("uuid", None), message.pop("distinct_id", None) or properties.get("distinct_id")
    properties.pop("token", None)
    return make_event(
        session_id=id_or_none("$session_id", properties.get("$session_id")) or "",
        event_type=event_type,
        event_id=uuid or content_id(message, event_type, distinct_id, timestamp, offset),
        properties=message | actor_ids(event_type, id_or_none("distinct_id", distinct_id), properties),
        **_time_arguments(timestamp, offset, properties, opened),
    )


def actor_ids(event_type: Any, distinct_id: str | None, properties: dict[str, Any]) -> dict[str, str]:
    """The ids of an event, under the names that Penstock uses."""
    if distinct_id in (None, COOKIELESS, f"${properties.get('$group_type')}_{properties.get('$group_key')}"):
        return {}
    if type(event_type) is str and event_type in LINKS:
        posthog_name, name = LINKS[event_type]
        linked_id = id_or_none(posthog_name, properties.get(posthog_name))
        return {"user_id": distinct_id} | ({name: linked_id} if linked_id and linked_id != distinct_id else {})
    is_anonymous = (
        properties.get("$is_identified") is False
        or properties.get("$process_person_profile") is False
        or distinct_id == properties.get("$device_id")
    )
    return {"anonymous_id" if is_anonymous else "user_id": distinct_id}


def _time_arguments(timestamp: Any, offset: Any, properties: dict[str, Any], opened: OpenedRequest) -> dict[str, Any]:
    """When an event happened, for make_event.

    posthog-js sends no timestamp, but how many milliseconds before the request the event happened.
    """
    if timestamp and properties.get("$ignore_sent_at") is True:
        return {"timestamp": timestamp}
    arguments = time_arguments(timestamp, opened)
    if not timestamp and type(offset) in (int, float) and 0 <= offset < TEN_YEARS_MS:
        arguments["clock_us"] -= int(offset * 1_000)
    return arguments


POSTHOG = Format(
    name="posthog",
    open=open_request,
    event_of=event_of,
    identity_of=identity_without(TRANSPORT),
    answer=lambda request, opened: Answer(200, b'{"status":1}'),
    status_when_limited=503,  # after a 429, browsers drop the events
)


def choose(request: ForeignRequest) -> Format:
    """PostHog, for every request."""
    return POSTHOG
