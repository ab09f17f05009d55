"""One set of SQLite tables: how records become its rows. Callers hold the transaction."""

from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any

import msgspec
import pysqlite3

from projector.projection import NO_CHECKPOINT, Batch, Checkpoint, Counts, EventRow, KnownEvent, QuarantineRow, SessionRow
from projector.projection.project import content_of, refused
from projector.projection.sessionization import sessionless_of
from projector.projection.sessions import by_session, with_sessions
from projector.store.sqlite.schema import LIVE
from projector.store.sqlite.sessions import SESSION, SESSION_VALUES, planned, write
from projector.store.sqlite.staging import COLUMNS
from projector.store.sqlite.tombstones import Tombstones, names_of
from projector.store.structs import KEYS, StagedRows, TenantState
from streams import keys_of
from streams.runtime import failpoint

# What a value of ours can meet in a table that we did not expect; I/O, locks and full disks are none of these.
CONSTRAINT_ERRORS = (pysqlite3.IntegrityError, pysqlite3.DataError, pysqlite3.InterfaceError, OverflowError, UnicodeError)
CHECKPOINT = ", ".join(Checkpoint.__struct_fields__)


class TableSet:
    """The tables under one suffix, over one connection."""

    def __init__(self, connection: Any, suffix: str = LIVE) -> None:
        self._connection = connection
        self.suffix = suffix
        self.tombstones = Tombstones(connection, suffix)
        self._insert_event = (
            f"INSERT INTO events{suffix} ({COLUMNS}, session_position) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        )
        self._take_events = (
            f"INSERT INTO events{suffix} ({COLUMNS}, session_position) "
            f"SELECT {COLUMNS}, coalesce(first_position, session_position) "
            "FROM chunk.rows LEFT JOIN temp.known_sessions ON position_in_chunk = session_position "
            "WHERE rows.rowid BETWEEN ? AND ? ORDER BY rows.rowid ON CONFLICT DO NOTHING"
        )
        self._add_to_session = (
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

    def checkpoint(self, tenant: str) -> Checkpoint:
        """A tenant's checkpoint; position 0 for one that is unknown."""
        row = self._connection.execute(
            f"SELECT {CHECKPOINT} FROM checkpoints{self.suffix} WHERE tenant_id = ?", (tenant,)
        ).fetchone()
        return Checkpoint(*row) if row else NO_CHECKPOINT

    def checkpoints(self) -> dict[str, Checkpoint]:
        """Every tenant's checkpoint."""
        rows = self._connection.execute(f"SELECT tenant_id, {CHECKPOINT} FROM checkpoints{self.suffix} ORDER BY tenant_id")
        return {tenant: Checkpoint(*checkpoint) for tenant, *checkpoint in rows}

    def state(self, tenant: str) -> TenantState:
        """A tenant's checkpoint, and whether it was deleted."""
        checkpoint = self.checkpoint(tenant)
        return TenantState(checkpoint, checkpoint is NO_CHECKPOINT and self.is_deleted(tenant))

    def is_deleted(self, tenant: str) -> bool:
        """Whether a tenant was deleted and not created again. Such a tenant has no checkpoint."""
        row = self._connection.execute("SELECT 1 FROM deleted_tenants WHERE tenant_digest = ?", (keys_of(tenant).digest,))
        return row.fetchone() is not None

    def apply(self, batch: Batch, stored: StagedRows | None = None) -> bool:
        """Write a batch if it begins behind the checkpoint, and move the checkpoint; False, and nothing, if it does not, or its
        tenant was erased.

        With `stored`, its rows are in the file that is attached as `chunk`.
        """
        before = self.checkpoint(batch.tenant)
        if before.position != batch.after or (before is NO_CHECKPOINT and self.is_deleted(batch.tenant)):
            return False
        counts = Counts(before.late_duplicates, before.dropped, before.erased)
        if batch.erased:
            self.tombstones.mark(batch.tenant, batch.erased, counts)
        if before.erased or batch.erases:  # only then may there be names that stay out
            self._write_what_may_stay(batch, stored, counts)
        else:
            self._insert_quarantine(batch.quarantined)
            self._write(batch.tenant, batch.rows, stored, counts)
            for placed in batch.control_records:  # no row asks what is in quarantine: behind the rows is as good as between them
                self.tombstones.carry_out(batch.tenant, placed.control_record, counts)
        failpoint("between_rows_and_checkpoint")
        self._keep(batch.tenant, Checkpoint(batch.through, batch.digest, *msgspec.structs.astuple(counts)))
        return True

    def _keep(self, tenant: str, checkpoint: Checkpoint) -> None:
        self._connection.execute(
            f"INSERT INTO checkpoints{self.suffix} (tenant_id, {CHECKPOINT}) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (tenant_id) DO UPDATE SET position = excluded.position, digest = excluded.digest, "
            "late_duplicates = excluded.late_duplicates, dropped = excluded.dropped, erased = excluded.erased",
            (tenant, *msgspec.structs.astuple(checkpoint)),
        )

    def erase(self, tenant: str, positions: Sequence[int]) -> None:
        """Remove what stands at those of these positions that this set has had: a note that another set has carried out says so.
        When this one gets to the note it finds nothing left to do."""
        before = self.checkpoint(tenant)
        counts = Counts(before.late_duplicates, before.dropped, before.erased)
        self.tombstones.erase(tenant, [position for position in positions if position <= before.position], counts)
        if before is not NO_CHECKPOINT:
            digest = "" if before.position in positions else before.digest
            self._keep(tenant, Checkpoint(before.position, digest, *msgspec.structs.astuple(counts)))

    def _write_what_may_stay(self, batch: Batch, stored: StagedRows | None, counts: Counts) -> None:
        """Write all but what has a name that was forgotten before it, and carry notes out in between."""
        rows = self._stored(stored) if stored else batch.rows
        begin = batch.after + 1
        for placed in [*batch.control_records, None]:
            here = range(begin, placed.position if placed else batch.through + 1)
            named = [one for one in (*names_of(rows), *batch.named) if one[0] in here]
            suppressed = self.tombstones.suppressed(batch.tenant, named)
            self.tombstones.mark(batch.tenant, sorted(suppressed), counts)
            stays = [one for one in batch.quarantined if one.position in here and one.position not in suppressed]
            self._insert_quarantine(stays)
            if stored and not batch.control_records and not suppressed:
                self._write(batch.tenant, [], stored, counts)
            else:
                fresh = [row for row in rows if row.position in here and row.position not in suppressed]
                self._write(batch.tenant, fresh, None, counts)
            if placed:
                self.tombstones.carry_out(batch.tenant, placed.control_record, counts)
                begin = placed.position

    def _write(self, tenant: str, rows: Sequence[EventRow], stored: StagedRows | None, counts: Counts) -> None:
        """Write rows and sessions, and set aside what no table takes."""
        late, make = self._insert(tenant, rows) if stored is None else self._take(tenant, stored)
        self._insert_quarantine(make)
        counts.late_duplicates += late

    def _insert(self, tenant: str, rows: Sequence[EventRow]) -> tuple[int, list[QuarantineRow]]:
        """Write rows and sessions; how many were late duplicates, and what no table takes.

        The insert itself says whether all rows were fresh. If they were not, their half is tried again, down to the one
        row: such rows are rare, and a session must never begin at the position of a row that is not there.
        """
        if not rows:
            return 0, []
        try:
            if self._insert_fresh(tenant, rows):
                return 0, []
            error = None
        except CONSTRAINT_ERRORS as caught:
            error = caught
        self._remove(tenant, rows)
        if len(rows) > 1:
            middle = len(rows) // 2
            late, make = self._insert(tenant, rows[:middle])
            late_too, set_aside_too = self._insert(tenant, rows[middle:])
            return late + late_too, make + set_aside_too
        [row] = rows
        if error is not None:
            return 0, [refused(row, "invalid", f"{type(error).__name__}: {error}")]
        known = self.known_event(row)
        if known is not None and known.content == content_of(row):
            return 1, []
        return 0, [refused(row, "conflict", f"the event of that name is at position {known and known.position}")]

    def _insert_fresh(self, tenant: str, rows: Sequence[EventRow]) -> bool:
        """Write rows and what they add to sessions, if every row is fresh; False, with some rows written, if not."""
        sessions = by_session(rows)
        plan = planned(self._connection, self.suffix, tenant, sessionless_of(rows))
        values, added = with_sessions(rows, sessions, self._known_sessions(tenant, sessions), plan.placed)
        if self._connection.executemany(self._insert_event, values).rowcount != len(rows):
            return False
        write(self._connection, self.suffix, tenant, plan)
        self._add_to_sessions(added)
        return True

    def _take(self, tenant: str, stored: StagedRows) -> tuple[int, list[QuarantineRow]]:
        """Write rows that are in the attached chunk, all with one statement; one by one if some are not fresh."""
        try:
            if self._take_fresh(tenant, stored):
                return 0, []
        except CONSTRAINT_ERRORS:
            pass  # the rows one by one say which
        rows = self._stored(stored)
        self._remove(tenant, rows)
        return self._insert(tenant, rows)

    def _stored(self, stored: StagedRows) -> list[EventRow]:
        """Rows of the attached chunk."""
        select = f"SELECT {COLUMNS} FROM chunk.rows WHERE rowid BETWEEN ? AND ? ORDER BY rowid"
        return [EventRow(*row) for row in self._connection.execute(select, (stored.first, stored.last))]

    def _take_fresh(self, tenant: str, stored: StagedRows) -> bool:
        """Write rows of the chunk, if every row is fresh; False, with some rows written, if not."""
        known = self._known_sessions(tenant, [session.session_id for session in stored.sessions])
        begun = [(one.first_position, known[one.session_id]) for one in stored.sessions if one.session_id in known]
        plan = planned(self._connection, self.suffix, tenant, stored.sessionless)
        self._connection.execute("DELETE FROM temp.known_sessions")
        self._connection.executemany("INSERT INTO temp.known_sessions VALUES (?, ?)", [*begun, *plan.placed.items()])
        taken = self._connection.execute(self._take_events, (stored.first, stored.last)).rowcount
        if taken != stored.last - stored.first + 1:
            return False
        positions = dict(begun)
        self._add_to_sessions(
            [
                msgspec.structs.replace(one, first_position=positions.get(one.first_position, one.first_position))
                for one in stored.sessions
            ]
        )
        write(self._connection, self.suffix, tenant, plan)
        return True

    def _remove(self, tenant: str, rows: Sequence[EventRow]) -> None:
        """Take back what was written of some rows."""
        self._connection.execute(
            f"DELETE FROM events{self.suffix} WHERE tenant_id = ? AND position BETWEEN ? AND ?",
            (tenant, rows[0].position, rows[-1].position),
        )

    def _add_to_sessions(self, sessions: list[SessionRow]) -> None:
        sessions.sort(key=_first_position)
        self._connection.executemany(self._add_to_session, map(msgspec.structs.astuple, sessions))

    def _known_sessions(self, tenant: str, session_ids: Iterable[str]) -> dict[str, int]:
        """The first positions of those sessions that are in the tables."""
        return dict(self._connection.execute(self._first_positions, (tenant, msgspec.json.encode(list(session_ids)).decode())))

    def _insert_quarantine(self, rows: Sequence[QuarantineRow]) -> None:
        self._connection.executemany(
            f"INSERT INTO quarantine{self.suffix} (tenant_id, position, received_at_us, reason, detail, body) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            map(msgspec.structs.astuple, rows),
        )

    def known_event(self, row: EventRow) -> KnownEvent | None:
        """The event in this set that has the identity of a row, or None."""
        if row.event_id is not None:
            where = "event_id = ?"
            values: list[Any] = [row.event_id]
        else:
            where = "timestamp_us = ? AND event_hash = ? AND hash_parts = ? AND event_id IS NULL"
            values = [row.timestamp_us, row.event_hash, row.hash_parts]
        found = self._connection.execute(
            f"SELECT position, session_id, event_type, timestamp, properties FROM events{self.suffix} "
            f"WHERE tenant_id = ? AND {where}",
            [row.tenant_id, *values],
        ).fetchone()
        return KnownEvent(found[0], found[1:]) if found else None

    def count(self, table: str, tenant: str) -> int:
        """How many rows of a tenant one table has, counted."""
        [count] = self._connection.execute(f"SELECT count(*) FROM {table}{self.suffix} WHERE tenant_id = ?", (tenant,)).fetchone()
        return int(count)

    def rows(self, table: str, tenant: str, *, begin: int = 0) -> Iterator[dict[str, Any]]:
        """A tenant's rows of one table, in order of their key: those of positions from `begin` on, and sessions that have an
        event there."""
        key = ", ".join(KEYS[table])
        touched = f"SELECT session_position FROM events{self.suffix} WHERE tenant_id = ?1 AND position >= ?2"
        narrowed = f"{key} IN ({touched})" if table == "event_sessions" else f"{key} >= ?2"
        yield from self._mappings(table, narrowed if begin else "?2 = 0", key, (tenant, begin))

    def row(self, table: str, tenant: str, key: int) -> dict[str, Any] | None:
        """A tenant's row of one table, by its key."""
        [column] = KEYS[table]
        return next(self._mappings(table, f"{column} = ?2", column, (tenant, key)), None)

    def _mappings(self, table: str, where: str, key: str, values: tuple[str, int]) -> Iterator[dict[str, Any]]:
        statement = f"SELECT * FROM {table}{self.suffix} WHERE tenant_id = ?1 AND {where} ORDER BY {key}"
        cursor = self._connection.execute(statement, values)
        columns = [column[0] for column in cursor.description]
        for row in cursor:
            yield dict(zip(columns, row, strict=True))

    def first_received(self, tenant: str, moment_us: int) -> int | None:
        """The first position that has a row, or is in quarantine, of a record that was received at a time or after it."""
        first = "SELECT position FROM {} WHERE tenant_id = ?1 AND received_at_us >= ?2 ORDER BY position LIMIT 1"
        both = " UNION ALL ".join(f"SELECT * FROM ({first.format(table + self.suffix)})" for table in ("events", "quarantine"))
        found: tuple[int | None] = self._connection.execute(f"SELECT min(position) FROM ({both})", (tenant, moment_us)).fetchone()
        return found[0]


_first_position = attrgetter("first_position")
