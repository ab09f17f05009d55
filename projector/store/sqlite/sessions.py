"""Actors in one set of SQLite tables: which sessions the events of a tenant make there that came without one.

What new events do is worked out before they are written: runs that reach into each other join, and only where links take
something away are sessions made from all events again. Callers hold the transaction, the only one that writes, so no actor is
locked by itself.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from projector.projection import EventRow, SessionRow
from projector.projection.identities import (
    ACTOR_LIMIT_IDENTITIES,
    Link,
    Neighbours,
    actor_of,
    linked_to,
    links_of,
    user_of,
    users_of,
)
from projector.projection.sessionization import Sessionless, by_gap, join, run_of
from projector.store.sqlite.schema import identity_index, session_gap_of

Actor = frozenset[str]
Span = tuple[int, int]  # microseconds of event time, both included
Deleted = tuple[EventRow, int]  # a row that was, and the first position of its session

EVER = (-(2**62), 2**62)
EVENT = ", ".join(EventRow.__struct_fields__)
SESSION = ", ".join(SessionRow.__struct_fields__)
# an empty text made NULL: to bind None takes ten times as long, since the driver looks for an adapter of it
_OPTIONAL = ("user_id", "anonymous_id")
SESSION_VALUES = ", ".join("nullif(?, '')" if name in _OPTIONAL else "?" for name in SessionRow.__struct_fields__)
_READ_SESSION = ", ".join(f"coalesce(s.{n}, '')" if n in _OPTIONAL else f"s.{n}" for n in SessionRow.__struct_fields__)


class Moved(msgspec.Struct, frozen=True, array_like=True):
    """Where the events of an identity, in a span of time, are now."""

    first_position: int
    tenant_id: str
    identity: str
    started_at_us: int
    last_event_at_us: int


class Plan(msgspec.Struct, frozen=True):
    """What is to be written beside new events: `placed` is the first position of the session of each that came without one,
    `gone` are sessions, by first position, that others take the place of."""

    links: Counter[Link] = msgspec.field(default_factory=Counter)
    placed: dict[int, int] = msgspec.field(default_factory=dict)
    tombstones: set[int] = msgspec.field(default_factory=set)
    added: list[SessionRow] = msgspec.field(default_factory=list)
    moved: list[Moved] = msgspec.field(default_factory=list)


NO_PLAN = Plan()


def planned(connection: Any, suffix: str, tenant: str, sessionless: Sessionless) -> Plan:
    """What events without a session, and links, do to sessions: nothing, for most tenants."""
    return Actors(connection, suffix, tenant).plan(sessionless) if sessionless else NO_PLAN


def write(connection: Any, suffix: str, tenant: str, plan: Plan) -> None:
    """Write what was planned, when the events are written."""
    if plan is not NO_PLAN:
        Actors(connection, suffix, tenant).write(plan)


class Actors:
    """A tenant's actors in the set under one suffix, over one connection."""

    def __init__(self, connection: Any, suffix: str, tenant: str) -> None:
        self._connection = connection
        self._suffix = suffix
        self._tenant = tenant
        self._gap_us = session_gap_of(connection, suffix)
        self._others: dict[str, list[str]] = {}
        # named, or statistics that somebody made may lead through all of a tenant's events
        self._events = f"events{suffix} INDEXED BY {identity_index(connection, suffix)}"
        self._first_run = (
            f"SELECT {_READ_SESSION} FROM events{suffix} AS e "
            f"INDEXED BY {identity_index(connection, suffix)} CROSS JOIN event_sessions{suffix} AS s "
            "ON s.tenant_id = e.tenant_id AND s.first_position = e.session_position "
            "WHERE e.tenant_id = ? AND e.identity = ? AND e.identity <> '' AND e.timestamp_us BETWEEN ? AND ? "
            "ORDER BY e.timestamp_us LIMIT 1"
        )

    def plan(self, sessionless: Sessionless) -> Plan:
        """What new events do to sessions, if all of them are written."""
        plan = Plan(links=Counter(sessionless.links))
        new: dict[str, list[SessionRow]] = defaultdict(list)
        for single in sessionless.singles:
            new[single.identity].append(single.run)
        added = self._unknown(plan.links)
        self._look_for_links({*new, *added})
        with_added = self._with(added)
        joined, anew = self._changed(added, with_added)
        actors: dict[Actor, list[SessionRow]] = {actor: [] for actor in joined | anew}
        for identity, runs in new.items():
            actors.setdefault(actor_of(identity, with_added), []).extend(runs)
        for actor, runs in actors.items():
            if actor in anew:
                self._compute(plan, actor, runs)
            else:
                self._extend(plan, actor, runs, [EVER] if actor in joined else self._reach(runs))
        return plan

    def write(self, plan: Plan) -> None:
        """Write what was planned."""
        many, tenant, suffix = self._connection.executemany, self._tenant, self._suffix
        many(
            f"INSERT INTO identity_links{suffix} VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET event_count = event_count + excluded.event_count",
            sorted((tenant, *ends, count) for link, count in plan.links.items() for ends in (link, link[::-1])),
        )
        tombstones = [(tenant, first_position) for first_position in sorted(plan.tombstones)]
        many(f"DELETE FROM event_sessions{suffix} WHERE tenant_id = ? AND first_position = ?", tombstones)
        many(
            f"INSERT INTO event_sessions{suffix} ({SESSION}) VALUES ({SESSION_VALUES})",
            map(msgspec.structs.astuple, sorted(plan.added, key=lambda session: session.first_position)),
        )
        many(
            f"UPDATE {self._events} SET session_position = ?1 WHERE tenant_id = ?2 AND identity = ?3 AND identity <> '' "
            "AND timestamp_us BETWEEN ?4 AND ?5 AND session_position <> ?1",
            map(msgspec.structs.astuple, plan.moved),
        )

    def refold(self, deleted: Iterable[Deleted]) -> None:
        """Make the sessions again of whom some events were deleted, from those that are left; who only they linked is not
        linked any more."""
        plan, links, touched = Plan(), Counter[Link](), set[str]()
        for row, session_position in deleted:
            links.update(links_of(row.event_type, row.properties))
            if row.identity:
                touched.add(row.identity)
                plan.tombstones.add(session_position)
        ends = {end for link in links for end in link}
        touched = touched.union(*(actor_of(identity, self._linked) for identity in touched | ends))
        self._unlink(links)
        self._others.clear()
        for actor in {actor_of(identity, self._linked) for identity in touched | ends}:
            self._compute(plan, actor, [])
        self.write(plan)

    # -- who is who ----------------------------------------------------------------------------------------------------

    def _changed(self, added: dict[str, list[str]], with_added: Neighbours) -> tuple[set[Actor], set[Actor]]:
        """The actors that links make of others, and those whose sessions must be made from their events: of one identity each,
        since they were too many; or whose user is only somebody's previous one now."""
        joined: set[Actor] = set()
        anew: set[Actor] = set()
        for identity in added:
            actor, before = linked_to(identity, with_added), linked_to(identity, self._linked)
            if actor is not None:
                joined.add(actor)
            if before is None or len(before) == 1:
                continue
            if actor is None:
                anew |= {frozenset((one,)) for one in before}
            elif (user_id := user_of(before)) and user_id not in users_of(actor):
                anew.add(actor)
        return joined, anew

    def _with(self, added: dict[str, list[str]]) -> Neighbours:
        """Links as they are, and some more."""
        return lambda identity: [*self._linked(identity), *added.get(identity, ())]

    def _linked(self, identity: str) -> list[str]:
        """To whom an identity is linked; not all, if they are too many for an actor."""
        others = self._others.get(identity)
        if others is None:
            statement = f"SELECT linked_identity FROM identity_links{self._suffix} WHERE tenant_id = ? AND identity = ? LIMIT ?"
            found = self._connection.execute(statement, (self._tenant, identity, ACTOR_LIMIT_IDENTITIES + 1))
            others = self._others[identity] = [other for (other,) in found]
        return others

    def _look_for_links(self, identities: Collection[str]) -> None:
        """Remember which of some identities have no links: most."""
        none = (
            f"SELECT value FROM json_each(?2) WHERE NOT EXISTS "
            f"(SELECT 1 FROM identity_links{self._suffix} WHERE tenant_id = ?1 AND identity = value)"
        )
        self._others |= {identity: [] for (identity,) in self._connection.execute(none, (self._tenant, _json(identities)))}

    def _unknown(self, links: Counter[Link]) -> dict[str, list[str]]:
        """Those links that are new, as the identities that each is linked to."""
        known = (
            "SELECT p.key FROM json_each(?2) AS p WHERE EXISTS "
            f"(SELECT 1 FROM identity_links{self._suffix} "
            "WHERE tenant_id = ?1 AND identity = p.value ->> 0 AND linked_identity = p.value ->> 1)"
        )
        found = list(links)
        old = {key for (key,) in self._connection.execute(known, (self._tenant, _json(found)))} if found else set()
        added: dict[str, list[str]] = defaultdict(list)
        for one, other in (link for key, link in enumerate(found) if key not in old):
            added[one].append(other)
            added[other].append(one)
        return added

    def _unlink(self, links: Counter[Link]) -> None:
        """Take links back, each as often as an event said so."""
        ends = [(self._tenant, *ends, count) for link, count in links.items() for ends in (link, link[::-1])]
        where = "WHERE tenant_id = ?1 AND identity = ?2 AND linked_identity = ?3"
        table = f"identity_links{self._suffix}"
        self._connection.executemany(f"UPDATE {table} SET event_count = event_count - ?4 {where}", ends)
        self._connection.executemany(f"DELETE FROM {table} {where} AND event_count <= 0", [end[:3] for end in ends])

    # -- sessions ------------------------------------------------------------------------------------------------------

    def _extend(self, plan: Plan, actor: Actor, new: Sequence[SessionRow], spans: Sequence[Span]) -> None:
        """Join new runs with the sessions of their actor that have an event in one of some spans, and these with each other."""
        fresh = {run.first_position for run in new}
        old = {run.first_position: run for span in spans for identity in actor for run in self._runs(identity, span)}
        user_id = user_of(actor)
        for runs in by_gap([*old.values(), *new], self._gap_us):
            session = join(runs, user_id)
            if runs == [session] and session.first_position not in fresh:
                continue  # nothing came to it
            plan.added.append(session)
            for run in runs:
                if run.first_position in fresh:
                    plan.placed[run.first_position] = session.first_position
                    continue
                plan.tombstones.add(run.first_position)
                if run.first_position != session.first_position:
                    plan.moved.extend(self._moved(actor, run, session.first_position))

    def _compute(self, plan: Plan, actor: Actor, new: Sequence[SessionRow]) -> None:
        """Make the sessions of an actor from its events, those that are written and new ones."""
        fresh = {run.first_position for run in new}
        old = []
        for identity in actor:
            rows = self._connection.execute(
                f"SELECT session_position, {EVENT} FROM {self._events} WHERE tenant_id = ? AND identity = ? AND identity <> ''",
                (self._tenant, identity),
            )
            for session_position, *row in rows:
                plan.tombstones.add(session_position)
                old.append(run_of(EventRow(*row)))
        user_id = user_of(actor)
        for runs in by_gap([*old, *new], self._gap_us):
            session = join(runs, user_id)
            plan.added.append(session)
            plan.placed.update((run.first_position, session.first_position) for run in runs if run.first_position in fresh)
            plan.moved.extend(self._moved(actor, session, session.first_position))

    def _reach(self, runs: Iterable[SessionRow]) -> list[Span]:
        """Where a session has an event that some runs reach, each of which reaches the next within a span."""
        return [
            (together[0].started_at_us - self._gap_us, max(run.last_event_at_us for run in together) + self._gap_us)
            for together in by_gap(runs, self._gap_us)
        ]

    def _runs(self, identity: str, span: Span) -> Iterator[SessionRow]:
        """The sessions that have an event of an identity in a span, one after the other."""
        first, last = span
        while first <= last:
            row = self._connection.execute(self._first_run, (self._tenant, identity, first, last)).fetchone()
            if row is None:
                return
            run = SessionRow(*row)
            yield run
            first = run.last_event_at_us + 1

    def _moved(self, actor: Actor, run: SessionRow, first_position: int) -> list[Moved]:
        span = run.started_at_us, run.last_event_at_us
        return [Moved(first_position, self._tenant, identity, *span) for identity in actor]


def _json(values: Iterable[Any]) -> str:
    return msgspec.json.encode(list(values)).decode()
