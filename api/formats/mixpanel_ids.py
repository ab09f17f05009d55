"""Ids of users and devices in Mixpanel's messages. Pure.

A function that gets a message's members removes the ids that it reads. All functions return ids under Penstock's names: user_id,
anonymous_id (of a device), previous_id (an earlier id of the same actor).
"""

from typing import Any

DEVICE = "$device:"  # prefix of a distinct_id that names a device


def ids_of_event(event_type: Any, properties: dict[str, Any]) -> dict[str, str]:
    """The ids of an event."""
    if event_type == "$create_alias" and "alias" in properties:
        return actor_id(properties.pop("alias")) | previous_id(properties.pop("distinct_id", None))
    if event_type == "$merge" and is_pair(properties.get("$distinct_ids")):
        kept_id, merged_id = properties.pop("$distinct_ids")
        return actor_id(kept_id) | previous_id(merged_id)
    ids = user_and_device(properties)
    if event_type == "$identify":
        anonymous_id = properties.pop("$anon_id", None) or properties.pop("$anon_distinct_id", None)
        ids = ids | actor_id(properties.pop("$identified_id", None)) | previous_id(anonymous_id)
    return with_distinct_id(ids, properties, "distinct_id")


def ids_of_profile(message: dict[str, Any]) -> dict[str, str]:
    """The ids of a profile."""
    return with_distinct_id(user_and_device(message), message, "$distinct_id")


def user_and_device(members: dict[str, Any]) -> dict[str, str]:
    """The ids in the members $user_id and $device_id."""
    return actor_id(members.pop("$user_id", None)) | device_id(members.pop("$device_id", None))


def with_distinct_id(ids: dict[str, str], members: dict[str, Any], name: str) -> dict[str, str]:
    """The ids, completed by the distinct id.

    A distinct id that contradicts the other ids stays in the members.
    """
    distinct_id = members.pop(name, None)
    if distinct_id != ids.get("anonymous_id"):
        distinct_ids = actor_id(distinct_id)
        if not distinct_ids.items() <= (distinct_ids | ids).items():
            members[name] = distinct_id
        ids = distinct_ids | ids
    return ids


def actor_id(value: Any) -> dict[str, str]:
    """A user_id, or an anonymous_id if the value names a device.

    A missing or empty value gives no id.
    """
    if type(value) is str and value.startswith(DEVICE):
        return device_id(value)
    return {} if value in (None, "") else {"user_id": str(value)}


def device_id(value: Any) -> dict[str, str]:
    """An anonymous_id: the id of a device without its prefix."""
    return {} if value in (None, "") else {"anonymous_id": str(value).removeprefix(DEVICE)}


def previous_id(value: Any) -> dict[str, str]:
    """A previous_id, or an anonymous_id if the value is a device's."""
    if type(value) is str and value.startswith(DEVICE):
        return device_id(value)
    return {} if value in (None, "") else {"previous_id": str(value)}


def is_pair(value: Any) -> bool:
    """Whether a value is a list of two texts."""
    return type(value) is list and len(value) == 2 and all(type(id) is str for id in value)
