"""Which derived sessions change when events or links are added or deleted.

Decides, and writes nothing: a reader answers what the tables hold, and the plan says what to write. Runs of an actor's events
that come within the gap of each other join. Only where links separate what was one actor, or rename its user, are sessions made
from all events again.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from projector.projection.identities import Link, Neighbours, actor_of, linked_to, links_of, user_of, users_of
from projector.projection.rows import EventRow, SessionRow
from projector.projection.sessionization import Sessionless, by_gap, join, run_of

Actor = frozenset[str]
TimeSpan = tuple[int, int]  # microseconds of event time, both included
Deleted = tuple[EventRow, int]  # a row that was deleted, and the first position of its session

EVER = (-(2**62), 2**62)


class ActorReader(Protocol):
    """What the tables of one tenant hold of actors."""

    def linked(self, identity: str) -> list[str]:
        """The identities linked to one.

        Not all, if they are more than ACTOR_LIMIT_IDENTITIES.
        """

    def without_links(self, identities: Collection[str]) -> set[str]:
        """The identities that have no link."""

    def known_links(self, links: Sequence[Link]) -> set[Link]:
        """The links that the tables have."""

    def sessions(self, identity: str, span: TimeSpan) -> Iterable[SessionRow]:
        """The derived sessions that have an event of an identity in a span."""

    def events(self, identity: str) -> Iterable[tuple[int, EventRow]]:
        """The sessionless events of an identity.

        Each comes with the first position of its derived session.
        """


class Moved(msgspec.Struct, frozen=True, array_like=True):
    """A span of an identity's events is now in another session.

    `first_position` is that session's.
    """

    first_position: int
    identity: str
    started_at_us: int
    last_event_at_us: int


class Plan(msgspec.Struct, frozen=True):
    """What to write for derived sessions.

    Links to count, sessions to remove (by first position) and to add, and events to move between sessions.

    `placed` gives the first position of its session for each new event, by the event's position.
    """

    links: Counter[Link] = msgspec.field(default_factory=Counter)
    placed: dict[int, int] = msgspec.field(default_factory=dict)
    removed: set[int] = msgspec.field(default_factory=set)
    added: list[SessionRow] = msgspec.field(default_factory=list)
    moved: list[Moved] = msgspec.field(default_factory=list)


class Links:
    """Links of identities, each read once."""

    def __init__(self, tables: ActorReader) -> None:
        self._tables = tables
        self._linked: dict[str, list[str]] = {}

    def look_up(self, identities: Collection[str]) -> None:
        """Remember which of some identities have no links: most."""
        self._linked |= {identity: [] for identity in self._tables.without_links(identities)}

    def __call__(self, identity: str) -> list[str]:
        """The identities linked to one."""
        linked = self._linked.get(identity)
        if linked is None:
            linked = self._linked[identity] = self._tables.linked(identity)
        return linked


def plan_additions(sessionless: Sessionless, tables: ActorReader, gap_us: int) -> Plan:
    """What new events, and links, do to sessions."""
    plan = Plan(links=Counter(sessionless.links))
    runs: dict[str, list[SessionRow]] = defaultdict(list)
    for single in sessionless.singles:
        runs[single.identity].append(single.run)
    added = _neighbours_of(plan.links.keys() - tables.known_links(list(plan.links)) if plan.links else ())
    links = Links(tables)
    links.look_up({*runs, *added})
    linked = _with(links, added)
    joined, separated = changed_actors(added, links, linked)
    actors: dict[Actor, list[SessionRow]] = {actor: [] for actor in joined | separated}
    for identity, new in runs.items():
        actors.setdefault(actor_of(identity, linked), []).extend(new)
    for actor, new in actors.items():
        if actor in separated:
            replace_sessions(plan, actor, [event for identity in actor for event in tables.events(identity)], new, gap_us)
        else:
            spans = [EVER] if actor in joined else reach(new, gap_us)
            old = [session for span in spans for identity in actor for session in tables.sessions(identity, span)]
            extend_sessions(plan, actor, old, new, gap_us)
    return plan


def deleted_links(deleted: Iterable[Deleted]) -> Counter[Link]:
    """The links that deleted events made, each as often as an event made it."""
    return Counter(link for row, _ in deleted for link in links_of(row.event_type, row.properties))


def touched_by(deleted: Iterable[Deleted], links: Collection[Link], tables: ActorReader) -> set[str]:
    """The identities whose sessions a deletion may change.

    To be asked while the tables still have the links of the deleted events.
    """
    linked = Links(tables)
    touched = {row.identity for row, _ in deleted if row.identity} | {end for link in links for end in link}
    return touched.union(*(actor_of(identity, linked) for identity in touched))


def plan_deletion(deleted: Iterable[Deleted], touched: Collection[str], tables: ActorReader, gap_us: int) -> Plan:
    """What a deletion does to sessions, after its links are removed.

    Identities that only the deleted events linked are separate actors again.
    """
    plan, links = Plan(), Links(tables)
    plan.removed.update(session_position for row, session_position in deleted if row.identity)
    for actor in {actor_of(identity, links) for identity in touched}:
        replace_sessions(plan, actor, [event for identity in actor for event in tables.events(identity)], [], gap_us)
    return plan


# -- actors ------------------------------------------------------------------------------------------------------------


def changed_actors(added: Mapping[str, list[str]], before: Neighbours, after: Neighbours) -> tuple[set[Actor], set[Actor]]:
    """The actors that new links make of several.

    And those whose sessions must be made from their events.

    Those are single identities of what has become too large for an actor, and actors whose user has become a previous id.
    """
    joined: set[Actor] = set()
    separated: set[Actor] = set()
    for identity in added:
        actor, earlier = linked_to(identity, after), linked_to(identity, before)
        if actor is not None:
            joined.add(actor)
        if earlier is None or len(earlier) == 1:
            continue
        if actor is None:
            separated |= {frozenset((member,)) for member in earlier}
        elif (user_id := user_of(earlier)) and user_id not in users_of(actor):
            separated.add(actor)
    return joined, separated


def _neighbours_of(links: Iterable[Link]) -> dict[str, list[str]]:
    """Links as the identities that each identity is linked to."""
    neighbours: dict[str, list[str]] = defaultdict(list)
    for identity, linked_identity in sorted(links):
        neighbours[identity].append(linked_identity)
        neighbours[linked_identity].append(identity)
    return neighbours


def _with(links: Links, added: Mapping[str, list[str]]) -> Neighbours:
    """Links as they are, and new links."""
    return lambda identity: [*links(identity), *added.get(identity, ())]


# -- sessions ----------------------------------------------------------------------------------------------------------


def extend_sessions(plan: Plan, actor: Actor, old: Iterable[SessionRow], new: Sequence[SessionRow], gap_us: int) -> None:
    """Join new runs with the sessions that they reach.

    Sessions that come within the gap of each other join, too.
    """
    fresh = {run.first_position for run in new}
    known = {session.first_position: session for session in old}
    user_id = user_of(actor)
    for runs in by_gap([*known.values(), *new], gap_us):
        session = join(runs, user_id)
        if runs == [session] and session.first_position not in fresh:
            continue  # nothing was added to it
        plan.added.append(session)
        for run in runs:
            if run.first_position in fresh:
                plan.placed[run.first_position] = session.first_position
                continue
            plan.removed.add(run.first_position)
            if run.first_position != session.first_position:
                plan.moved.extend(_moved(actor, run, session.first_position))


def replace_sessions(
    plan: Plan, actor: Actor, old: Iterable[tuple[int, EventRow]], new: Sequence[SessionRow], gap_us: int
) -> None:
    """Make an actor's sessions from all of its events, old and new."""
    fresh = {run.first_position for run in new}
    known = []
    for session_position, row in old:
        plan.removed.add(session_position)
        known.append(run_of(row))
    user_id = user_of(actor)
    for runs in by_gap([*known, *new], gap_us):
        session = join(runs, user_id)
        plan.added.append(session)
        plan.placed.update((run.first_position, session.first_position) for run in runs if run.first_position in fresh)
        plan.moved.extend(_moved(actor, session, session.first_position))


def reach(runs: Iterable[SessionRow], gap_us: int) -> list[TimeSpan]:
    """The spans of time that runs reach.

    A run joins a session that has an event there.
    """
    return [
        (joined[0].started_at_us - gap_us, max(run.last_event_at_us for run in joined) + gap_us)
        for joined in by_gap(runs, gap_us)
    ]


def _moved(actor: Actor, run: SessionRow, first_position: int) -> list[Moved]:
    return [Moved(first_position, identity, run.started_at_us, run.last_event_at_us) for identity in actor]
