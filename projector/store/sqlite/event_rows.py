"""Rows into `events`, with what they add to sessions.

They come from memory, or from a file that another process staged.

Callers hold the transaction.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pysqlite3

from projector.projection import Counts, EventRow, KnownEvent, QuarantineRow
from projector.projection.actors import Plan, plan_additions
from projector.projection.additions import Additions, additions_of, at_positions, values_of
from projector.projection.project import outcome_of, refused
from projector.store.sqlite.actors import SqliteActors
from projector.store.sqlite.columns import EVENT, QUARANTINE, SESSION, SESSION_VALUES, json_list
from projector.store.structs import StagedRows

# What a value of ours can meet in a table that we did not expect; I/O, locks and full disks are none of these.
CONSTRAINT_ERRORS = (pysqlite3.IntegrityError, pysqlite3.DataError, pysqlite3.InterfaceError, OverflowError, UnicodeError)

NO_PLAN = Plan()


class EventRows:
    """The tables that rows are written to, in one set."""

    def __init__(self, connection: Any, suffix: str) -> None:
        self._connection = connection
        self._suffix = suffix
        self.insert_event = (
            f"INSERT INTO events{suffix} ({EVENT}, session_position) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        )
        self._insert_staged = (
            f"INSERT INTO events{suffix} ({EVENT}, session_position) "
            f"SELECT {EVENT}, coalesce(first_position, session_position) "
            "FROM chunk.rows LEFT JOIN temp.known_sessions ON position_in_chunk = session_position "
            "WHERE rows.rowid BETWEEN ? AND ? ORDER BY rows.rowid ON CONFLICT DO NOTHING"
        )
        self.add_to_session = (
            f"INSERT INTO event_sessions{suffix} ({SESSION}) VALUES ({SESSION_VALUES}) "
            "ON CONFLICT (tenant_id, session_id, derived * first_position) DO UPDATE SET "
            "first_event_type = iif(excluded.started_at_us < started_at_us, excluded.first_event_type, first_event_type), "
            "last_event_type = iif(excluded.last_event_at_us >= last_event_at_us, excluded.last_event_type, last_event_type), "
            "started_at_us = min(started_at_us, excluded.started_at_us), "
            "last_event_at_us = max(last_event_at_us, excluded.last_event_at_us), "
            "event_count = event_count + excluded.event_count, "
            "user_id = iif(user_id < excluded.user_id, user_id, coalesce(excluded.user_id, user_id)), "
            "anonymous_id = "
            "iif(anonymous_id < excluded.anonymous_id, anonymous_id, coalesce(excluded.anonymous_id, anonymous_id))"
        )
        self._first_positions = (
            f"SELECT session_id, first_position FROM json_each(?2) CROSS JOIN event_sessions{suffix} "
            "ON tenant_id = ?1 AND session_id = value AND derived * first_position = 0"
        )

    def write(self, tenant: str, rows: Sequence[EventRow] | StagedRows, counts: Counts) -> None:
        """Write rows, and quarantine those that the table refuses.

        Late duplicates are counted.

        The insert itself says whether all rows were fresh. If not, what it wrote is removed and each half is tried again, down
        to single rows: such rows are rare, and a session must never begin at the position of a row that was not written.
        """
        if not rows:
            return
        error: Exception | None = None
        try:
            if self._write_fresh(tenant, rows):
                return
        except CONSTRAINT_ERRORS as caught:
            error = caught
        in_memory = self.staged(rows) if isinstance(rows, StagedRows) else rows
        self._remove(tenant, in_memory)
        if len(in_memory) > 1:
            middle = len(in_memory) // 2
            self.write(tenant, in_memory[:middle], counts)
            self.write(tenant, in_memory[middle:], counts)
        else:
            self._refuse(in_memory[0], error, counts)

    def _write_fresh(self, tenant: str, rows: Sequence[EventRow] | StagedRows) -> bool:
        """Write rows and what they add to sessions, if every row is fresh.

        Returns False, with some rows written, if not.
        """
        additions = rows.additions if isinstance(rows, StagedRows) else additions_of(rows)
        session_ids = json_list([session.session_id for session in additions.sessions])
        known = dict(self._connection.execute(self._first_positions, (tenant, session_ids)).fetchall())
        moved = {
            session.first_position: known[session.session_id] for session in additions.sessions if session.session_id in known
        }
        plan = NO_PLAN
        if additions.sessionless:
            actors = SqliteActors(self._connection, self._suffix, tenant)
            plan = plan_additions(additions.sessionless, actors, actors.gap_us)
        if not self._insert(rows, additions, {**moved, **plan.placed}):
            return False
        if plan is not NO_PLAN:
            actors.write(plan)
        sessions = at_positions(additions.sessions, moved)  # last: a retry of half of the rows would add them twice
        self._connection.executemany(self.add_to_session, map(msgspec.structs.astuple, sessions))
        return True

    def _insert(self, rows: Sequence[EventRow] | StagedRows, additions: Additions, moved: Mapping[int, int]) -> bool:
        """Insert rows; whether all of them were fresh."""
        if not isinstance(rows, StagedRows):
            inserted = self._connection.executemany(self.insert_event, values_of(rows, additions, moved)).rowcount
            return bool(inserted == len(rows))
        self._connection.execute("DELETE FROM temp.known_sessions")
        self._connection.executemany("INSERT INTO temp.known_sessions VALUES (?, ?)", moved.items())
        inserted = self._connection.execute(self._insert_staged, (rows.first, rows.last)).rowcount
        return bool(inserted == rows.last - rows.first + 1)

    def _refuse(self, row: EventRow, error: Exception | None, counts: Counts) -> None:
        """Count a refused row as a late duplicate, or quarantine it."""
        if error is not None:
            self.quarantine([refused(row, "invalid", f"{type(error).__name__}: {error}")])
            return
        known = self.known_event(row)
        if outcome_of(row, known) == "late_duplicate":
            counts.late_duplicates += 1
            return
        self.quarantine([refused(row, "conflict", f"the event of that name is at position {known and known.position}")])

    def staged(self, rows: StagedRows) -> list[EventRow]:
        """Rows of the attached chunk."""
        select = f"SELECT {EVENT} FROM chunk.rows WHERE rowid BETWEEN ? AND ? ORDER BY rowid"
        return [EventRow(*row) for row in self._connection.execute(select, (rows.first, rows.last))]

    def quarantine(self, rows: Sequence[QuarantineRow]) -> None:
        """Put records into quarantine."""
        self._connection.executemany(
            f"INSERT INTO quarantine{self._suffix} ({QUARANTINE}) VALUES (?, ?, ?, ?, ?, ?)", map(msgspec.structs.astuple, rows)
        )

    def known_event(self, row: EventRow) -> KnownEvent | None:
        """The event in this set that has the identity of a row, or None."""
        if row.event_id is not None:
            where = "event_id = ?"
            values: list[Any] = [row.event_id]
        else:
            where = "timestamp_us = ? AND event_hash = ? AND hash_parts = ? AND event_id IS NULL"
            values = [row.timestamp_us, row.event_hash, row.hash_parts]
        event = self._connection.execute(
            f"SELECT position, session_id, event_type, timestamp, properties FROM events{self._suffix} "
            f"WHERE tenant_id = ? AND {where}",
            [row.tenant_id, *values],
        ).fetchone()
        return KnownEvent(event[0], event[1:]) if event else None

    def _remove(self, tenant: str, rows: Sequence[EventRow]) -> None:
        """Remove what was written of rows."""
        self._connection.execute(
            f"DELETE FROM events{self._suffix} WHERE tenant_id = ? AND position BETWEEN ? AND ?",
            (tenant, rows[0].position, rows[-1].position),
        )
