"""Links and derived sessions of actors in one set of SQLite tables.

The transaction is the only one that writes, so no actor is locked by itself.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import msgspec

from projector.projection import EventRow, SessionRow
from projector.projection.actors import Plan, TimeSpan
from projector.projection.identities import ACTOR_LIMIT_IDENTITIES, Link
from projector.store.sqlite.columns import EVENT, READ_SESSION, SESSION, SESSION_VALUES, json_list
from projector.store.sqlite.schema import identity_index, session_gap_of


class SqliteActors:
    """A tenant's actors in the set under one suffix, over one connection."""

    def __init__(self, connection: Any, suffix: str, tenant: str) -> None:
        self._connection = connection
        self._suffix = suffix
        self._tenant = tenant
        self.gap_us = session_gap_of(connection, suffix)
        # the index is named, or statistics that ANALYZE made may lead through all of a tenant's events
        self._events = f"events{suffix} INDEXED BY {identity_index(connection, suffix)}"
        self._first_session = (
            f"SELECT {READ_SESSION} FROM events{suffix} AS e "
            f"INDEXED BY {identity_index(connection, suffix)} CROSS JOIN event_sessions{suffix} AS s "
            "ON s.tenant_id = e.tenant_id AND s.first_position = e.session_position "
            "WHERE e.tenant_id = ? AND e.identity = ? AND e.identity <> '' AND e.timestamp_us BETWEEN ? AND ? "
            "ORDER BY e.timestamp_us LIMIT 1"
        )

    # -- reading -------------------------------------------------------------------------------------------------------

    def linked(self, identity: str) -> list[str]:
        """The identities linked to one.

        Not all, if they are too many for an actor.
        """
        statement = f"SELECT linked_identity FROM identity_links{self._suffix} WHERE tenant_id = ? AND identity = ? LIMIT ?"
        rows = self._connection.execute(statement, (self._tenant, identity, ACTOR_LIMIT_IDENTITIES + 1))
        return [linked for (linked,) in rows]

    def without_links(self, identities: Collection[str]) -> set[str]:
        """The identities that have no link."""
        statement = (
            "SELECT value FROM json_each(?2) WHERE NOT EXISTS "
            f"(SELECT 1 FROM identity_links{self._suffix} WHERE tenant_id = ?1 AND identity = value)"
        )
        return {identity for (identity,) in self._connection.execute(statement, (self._tenant, json_list(identities)))}

    def known_links(self, links: Sequence[Link]) -> set[Link]:
        """The links that the tables have."""
        statement = (
            f"SELECT p.key FROM json_each(?2) AS p WHERE EXISTS (SELECT 1 FROM identity_links{self._suffix} "
            "WHERE tenant_id = ?1 AND identity = p.value ->> 0 AND linked_identity = p.value ->> 1)"
        )
        return {links[key] for (key,) in self._connection.execute(statement, (self._tenant, json_list(links)))}

    def sessions(self, identity: str, span: TimeSpan) -> Iterator[SessionRow]:
        """The derived sessions with an event of an identity in a span.

        They come in order of time.
        """
        first, last = span
        while first <= last:
            row = self._connection.execute(self._first_session, (self._tenant, identity, first, last)).fetchone()
            if row is None:
                return
            session = SessionRow(*row)
            yield session
            first = session.last_event_at_us + 1

    def events(self, identity: str) -> Iterator[tuple[int, EventRow]]:
        """The sessionless events of an identity.

        Each comes with the first position of its derived session.
        """
        rows = self._connection.execute(
            f"SELECT session_position, {EVENT} FROM {self._events} WHERE tenant_id = ? AND identity = ? AND identity <> ''",
            (self._tenant, identity),
        )
        for session_position, *row in rows:
            yield session_position, EventRow(*row)

    # -- writing -------------------------------------------------------------------------------------------------------

    def write(self, plan: Plan) -> None:
        """Write what was planned; new events are written already."""
        many, tenant, suffix = self._connection.executemany, self._tenant, self._suffix
        many(
            f"INSERT INTO identity_links{suffix} VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET event_count = event_count + excluded.event_count",
            sorted((tenant, *ends, count) for link, count in plan.links.items() for ends in (link, link[::-1])),
        )
        many(
            f"DELETE FROM event_sessions{suffix} WHERE tenant_id = ? AND first_position = ?",
            [(tenant, first_position) for first_position in sorted(plan.removed)],
        )
        many(
            f"INSERT INTO event_sessions{suffix} ({SESSION}) VALUES ({SESSION_VALUES})",
            map(msgspec.structs.astuple, sorted(plan.added, key=lambda session: session.first_position)),
        )
        many(
            f"UPDATE {self._events} SET session_position = ?1 WHERE tenant_id = ?2 AND identity = ?3 AND identity <> '' "
            "AND timestamp_us BETWEEN ?4 AND ?5 AND session_position <> ?1",
            [(moved.first_position, tenant, *msgspec.structs.astuple(moved)[1:]) for moved in plan.moved],
        )

    def unlink(self, links: Counter[Link]) -> None:
        """Take links back, each as often as its count says."""
        ends = [(self._tenant, *ends, count) for link, count in links.items() for ends in (link, link[::-1])]
        where = "WHERE tenant_id = ?1 AND identity = ?2 AND linked_identity = ?3"
        table = f"identity_links{self._suffix}"
        self._connection.executemany(f"UPDATE {table} SET event_count = event_count - ?4 {where}", ends)
        self._connection.executemany(f"DELETE FROM {table} {where} AND event_count <= 0", [end[:3] for end in ends])
