"""Identities: the user or visitor of an event, and actors. Pure.

An event names its user and its anonymous visitor in its properties. A linking event says that all identities it names belong
together. An actor is the set of identities that links connect, directly or not, as long as they are few. Of a larger set, each
identity is an actor alone.
"""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

LINKING = frozenset({"identify", "$identify", "alias", "$create_alias", "$merge", "$merge_dangerously"})  # each SDK's own name
IDENTITY_LIMIT_BYTES = 256
ACTOR_LIMIT_IDENTITIES = 32  # more than a person has; names that stand for many people link whole tenants
PLACEHOLDERS = frozenset(
    {
        *("", "null", "nil", "none", "undefined", "nan", "0", "-1", "true", "false", "[object object]", "unknown", "anonymous"),
        *("guest", "distinct_id", "distinctid", "id", "user_id", "anonymous_id", "email", "not_authenticated"),
        "00000000-0000-0000-0000-000000000000",
    }
)
USER, ANONYMOUS = "u:", "a:"

Link = tuple[str, str]
Neighbours = Callable[[str], Iterable[str]]  # of an identity; may end after ACTOR_LIMIT_IDENTITIES of them


class Named(msgspec.Struct, frozen=True, gc=False):
    """The user and the visitor that an event names.

    Empty where there is none, or only a word such as `anonymous` that clients send instead.
    """

    user_id: str = ""
    anonymous_id: str = ""
    previous_id: str = ""

    @property
    def identity(self) -> str:
        """The user, or else the anonymous visitor, or an empty text."""
        if self.user_id:
            return USER + self.user_id
        return self.anonymous_id and ANONYMOUS + self.anonymous_id


class _Members(msgspec.Struct, frozen=True, gc=False):
    user_id: Any = None
    anonymous_id: Any = None
    previous_id: Any = None


NO_NAMES = Named()
_decode = msgspec.json.Decoder(_Members).decode


def named_in(properties: str) -> Named:
    """The names in an event's properties, which are JSON text.

    Most events have no such member and are not decoded.
    """
    if '_id"' not in properties:
        return NO_NAMES
    try:
        members = _decode(properties)
    except (msgspec.MsgspecError, RecursionError):  # a record that no endpoint accepted
        return NO_NAMES
    return Named(_name(members.user_id), _name(members.anonymous_id), _name(members.previous_id))


def _name(value: Any) -> str:
    """An id as text.

    Empty for a word that clients send when they have no id, and for a value that is no id.
    """
    if type(value) is int and -(2**63) <= value < 2**64:
        value = str(value)
    if type(value) is not str or value.strip().lower() in PLACEHOLDERS or "\0" in value:
        return ""
    return value if len(value.encode()) <= IDENTITY_LIMIT_BYTES else ""


def links_of(event_type: str, properties: str) -> list[Link]:
    """The pairs of identities that a linking event links.

    They are the same for the same event. Other events link none.

    A previous id may have been a user's or a visitor's. The event does not say which, so it links both.
    """
    if event_type not in LINKING:
        return []
    named = named_in(properties)
    identities = {
        *(USER + name for name in (named.user_id, named.previous_id) if name),
        *(ANONYMOUS + name for name in (named.anonymous_id, named.previous_id) if name),
    }
    if not identities:
        return []
    first, *others = sorted(identities)
    return [(first, other) for other in others]


def actor_of(identity: str, neighbours: Neighbours) -> frozenset[str]:
    """The actor of an identity.

    All identities linked to it, itself included; itself alone when they are too many.
    """
    return linked_to(identity, neighbours) or frozenset((identity,))


def linked_to(identity: str, neighbours: Neighbours) -> frozenset[str] | None:
    """An identity with all that are linked to it, or None.

    Returns None when they are too many for an actor.
    """
    linked, waiting = {identity}, [identity]
    while waiting:
        for other in neighbours(waiting.pop()):
            if other not in linked:
                linked.add(other)
                waiting.append(other)
        if len(linked) > ACTOR_LIMIT_IDENTITIES:
            return None
    return frozenset(linked)


def user_of(actor: frozenset[str]) -> str:
    """The user id that an actor's links give, or an empty text.

    It is the smallest id that is not also a previous id.
    """
    return min(users_of(actor), default="")


def users_of(actor: frozenset[str]) -> list[str]:
    """The user ids of an actor.

    A previous id is also an anonymous id, and is left out.
    """
    names = [identity.removeprefix(USER) for identity in actor if identity.startswith(USER)]
    return [name for name in names if ANONYMOUS + name not in actor]
