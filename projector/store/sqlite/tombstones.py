"""What control records remove from one set of SQLite tables.

Tombstones say what was removed. Callers hold the transaction.

To erase what was erased before does nothing. So the tables are the same whether a log was cleaned before its control record is
carried out, or after it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from projector.projection import Counts, EventRow, PlacedControl
from projector.projection.actors import Deleted, deleted_links, plan_deletion, touched_by
from projector.projection.control_effects import Erasure, Named, count_erasure, salted_names
from projector.projection.session_rows import fold_session
from projector.store.sqlite.actors import SqliteActors
from projector.store.sqlite.columns import EVENT, SESSION, SESSION_VALUES, json_list
from projector.store.sqlite.schema import index_sessions
from streams import control

OF_THESE = "tenant_id = ?1 AND position IN (SELECT value FROM json_each(?2))"


class Tombstones:
    """Removed records of the set under one suffix, over one connection."""

    def __init__(self, connection: Any, suffix: str) -> None:
        self._connection = connection
        self._suffix = suffix

    def carry_out(self, tenant: str, control_records: Sequence[PlacedControl], counts: Counts) -> None:
        """Do what control records say.

        They are in no table themselves, and are counted as dropped.
        """
        for placed in control_records:
            counts.dropped += 1
            if isinstance(placed.control_record, control.Erase):
                self.erase(tenant, placed.control_record.positions, counts)
                self._suppress(tenant, placed.control_record)
            else:
                self._drop(tenant, placed.control_record.positions, counts)

    def _drop(self, tenant: str, positions: Sequence[int], counts: Counts) -> None:
        """Take records out of quarantine, as far as they are there."""
        values = (tenant, json_list(positions))
        quarantined = f"SELECT tenant_id, position, 'dropped' FROM quarantine{{0}} WHERE {OF_THESE}"
        self._execute(f"INSERT INTO tombstones{{0}} {quarantined}", values)
        counts.dropped += self._execute(f"DELETE FROM quarantine{{0}} WHERE {OF_THESE}", values).rowcount

    def mark(self, tenant: str, positions: Sequence[int], counts: Counts) -> None:
        """Mark positions of records that are erased already.

        Such records are in no other table of this set.
        """
        if positions:
            statement = "INSERT INTO tombstones{0} SELECT ?1, value, 'erased' FROM json_each(?2)"
            self._execute(statement, (tenant, json_list(positions)))
            counts.erased += len(positions)

    def erase(self, tenant: str, positions: Sequence[int], counts: Counts) -> None:
        """Remove records from every table, and from their sessions."""
        erased_before = {position for (position,) in self._execute(
            f"SELECT position FROM tombstones{{0}} WHERE {OF_THESE} AND reason = 'erased'", (tenant, json_list(positions))
        )}  # fmt: skip
        fresh = [position for position in dict.fromkeys(positions) if position not in erased_before]
        values = (tenant, json_list(fresh))
        dropped = self._execute(f"UPDATE tombstones{{0}} SET reason = 'erased' WHERE {OF_THESE}", values).rowcount
        quarantined = self._execute(f"DELETE FROM quarantine{{0}} WHERE {OF_THESE}", values).rowcount
        rows = self._execute(f"DELETE FROM events{{0}} WHERE {OF_THESE} RETURNING session_position, {EVENT}", values).fetchall()
        self._execute("INSERT OR IGNORE INTO tombstones{0} SELECT ?1, value, 'erased' FROM json_each(?2)", values)
        if rows:
            index_sessions(self._connection, self._suffix)
            self.refold(tenant, [(EventRow(*row), session_position) for session_position, *row in rows])
        count_erasure(counts, Erasure(len(fresh), dropped, quarantined, len(rows)))

    # -- sessions ------------------------------------------------------------------------------------------------------

    def refold(self, tenant: str, deleted: Sequence[Deleted]) -> None:
        """Make the sessions of deleted events again from what is left.

        Derived sessions may fall apart.
        """
        sent = {session_position for row, session_position in deleted if row.session_id}
        for first_position, rows in self._rows_left(tenant, sent).items():
            self._execute("DELETE FROM event_sessions{0} WHERE tenant_id = ? AND first_position = ?", (tenant, first_position))
            if rows:
                self._write_session(tenant, rows)
        actors = SqliteActors(self._connection, self._suffix, tenant)
        links = deleted_links(deleted)
        touched = touched_by(deleted, links, actors)
        actors.unlink(links)
        actors.write(plan_deletion(deleted, touched, actors, actors.gap_us))

    def _rows_left(self, tenant: str, sessions: set[int]) -> dict[int, list[EventRow]]:
        """The rows that are left of sent sessions, by first position.

        The rows of a session are in order of position.
        """
        rows_left: dict[int, list[EventRow]] = {first_position: [] for first_position in sessions}
        statement = (
            f"SELECT session_position, {EVENT} FROM events{{0}} WHERE tenant_id = ? "
            "AND session_position IN (SELECT value FROM json_each(?)) ORDER BY position"
        )
        if sessions:
            for session_position, *row in self._execute(statement, (tenant, json_list(sorted(sessions)))):
                rows_left[session_position].append(EventRow(*row))
        return rows_left

    def _write_session(self, tenant: str, rows: Sequence[EventRow]) -> None:
        """Write the session that rows make, which begins at the first of them."""
        first = rows[0].position
        statement = f"INSERT INTO event_sessions{{0}} ({SESSION}) VALUES ({SESSION_VALUES})"
        self._execute(statement, msgspec.structs.astuple(fold_session(rows, first)))
        self._connection.executemany(
            f"UPDATE events{self._suffix} SET session_position = ?1 "
            "WHERE tenant_id = ?2 AND position = ?3 AND session_position <> ?1",
            [(first, tenant, row.position) for row in rows],
        )

    # -- names ---------------------------------------------------------------------------------------------------------

    def _suppress(self, tenant: str, erase: control.Erase) -> None:
        """Keep out what comes later by one of these names."""
        names = json_list([name for name in erase.names if name])
        statement = "INSERT OR IGNORE INTO suppressions{0} SELECT ?1, ?2, value FROM json_each(?3)"
        self._execute(statement, (tenant, erase.salt, names))

    def suppressed(self, tenant: str, named: Sequence[Named]) -> set[int]:
        """The positions of those events that have the name of an erased event."""
        suppressed: set[int] = set()
        statement = "SELECT value FROM json_each(?3) CROSS JOIN suppressions{0} ON tenant_id = ?1 AND salt = ?2 AND name = value"
        for salt in self._salts(tenant):
            positions = salted_names(salt, named)
            for (name,) in self._execute(statement, (tenant, salt, json_list(positions))):
                suppressed.update(positions[name])
        return suppressed

    def _salts(self, tenant: str) -> Iterator[str]:
        """A tenant's salts: one, unless its log was put together from several."""
        salt = ""
        while salt is not None:
            statement = "SELECT min(salt) FROM suppressions{0} WHERE tenant_id = ? AND salt > ?"
            [salt] = self._execute(statement, (tenant, salt)).fetchone()
            if salt is not None:
                yield salt

    def _execute(self, statement: str, values: Sequence[Any]) -> Any:
        """Execute a statement on tables of this set: {0} is its suffix."""
        return self._connection.execute(statement.format(self._suffix), values)
