"""Whom Mixpanel's messages are about: users, devices, and what links them. Pure."""

from typing import Any

DEVICE = "$device:"  # before a distinct_id that is a device's


def ids_of(event_type: Any, inner: dict[str, Any]) -> dict[str, str]:
    """Whom an event is about, under our names, taken out of its properties."""
    if event_type == "$create_alias" and "alias" in inner:
        return person(inner.pop("alias")) | previous(inner.pop("distinct_id", None))
    if event_type == "$merge" and is_pair(inner.get("$distinct_ids")):
        one, other = inner.pop("$distinct_ids")
        return person(one) | previous(other)
    ids = user_and_device(inner)
    if event_type == "$identify":
        before = inner.pop("$anon_id", None) or inner.pop("$anon_distinct_id", None)
        ids = ids | person(inner.pop("$identified_id", None)) | previous(before)
    return with_distinct(ids, inner, "distinct_id")


def ids_of_profile(message: dict[str, Any]) -> dict[str, str]:
    """The same of a profile."""
    return with_distinct(user_and_device(message), message, "$distinct_id")


def user_and_device(members: dict[str, Any]) -> dict[str, str]:
    """Who is named as what."""
    return person(members.pop("$user_id", None)) | device(members.pop("$device_id", None))


def with_distinct(ids: dict[str, str], members: dict[str, Any], name: str) -> dict[str, str]:
    """The same, and who the distinct id of that name is, which stays where it was if it is yet another."""
    distinct = members.pop(name, None)
    if distinct != ids.get("anonymous_id"):
        found = person(distinct)
        if not found.items() <= (found | ids).items():
            members[name] = distinct
        ids = found | ids
    return ids


def person(value: Any) -> dict[str, str]:
    """Who a distinct_id is: a user, or a device if it says so; what is missing or empty is nobody."""
    if type(value) is str and value.startswith(DEVICE):
        return device(value)
    return {} if value in (None, "") else {"user_id": str(value)}


def device(value: Any) -> dict[str, str]:
    """The device behind a value."""
    return {} if value in (None, "") else {"anonymous_id": str(value).removeprefix(DEVICE)}


def previous(value: Any) -> dict[str, str]:
    """Who somebody was before: a device, if it says so; else nobody knows what it was."""
    if type(value) is str and value.startswith(DEVICE):
        return device(value)
    return {} if value in (None, "") else {"previous_id": str(value)}


def is_pair(value: Any) -> bool:
    """Whether it is two ids."""
    return type(value) is list and len(value) == 2 and all(type(one) is str for one in value)
