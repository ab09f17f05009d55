"""What is in no table any more: positions that were dropped or erased, and the names of forgotten events, which stay out.

Over one set of tables; callers hold the transaction. To erase what was erased before does nothing, so it does not matter whether
a log was cleaned before or after the note that says so is carried out: the tables are the same.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from projector.projection import Counts, EventRow
from projector.store.sqlite.refold import refold
from projector.store.sqlite.schema import index_sessions
from projector.store.sqlite.staging import COLUMNS
from streams import control

OF_THESE = "tenant_id = ?1 AND position IN (SELECT value FROM json_each(?2))"


class Tombstones:
    """The part of a set of tables that says what is in none."""

    def __init__(self, connection: Any, suffix: str) -> None:
        self._connection = connection
        self._suffix = suffix

    def carry_out(self, tenant: str, control_record: control.Drop | control.Erase, counts: Counts) -> None:
        """Do what a note says; it is in no table itself."""
        counts.dropped += 1
        if isinstance(control_record, control.Erase):
            self.erase(tenant, control_record.positions, counts)
            self._suppress(tenant, control_record)
        else:
            self._drop(tenant, control_record.positions, counts)

    def _drop(self, tenant: str, positions: Sequence[int], counts: Counts) -> None:
        """Take positions out of quarantine, those that are there."""
        values = (tenant, _json(positions))
        quarantined = f"SELECT tenant_id, position, 'dropped' FROM quarantine{{0}} WHERE {OF_THESE}"
        self._execute(f"INSERT INTO tombstones{{0}} {quarantined}", values)
        counts.dropped += self._execute(f"DELETE FROM quarantine{{0}} WHERE {OF_THESE}", values).rowcount

    def mark(self, tenant: str, positions: Sequence[int], counts: Counts) -> None:
        """Positions of records that are in no table, because they were erased before this set got them."""
        self._execute("INSERT INTO tombstones{0} SELECT ?1, value, 'erased' FROM json_each(?2)", (tenant, _json(positions)))
        counts.erased += len(positions)

    def erase(self, tenant: str, positions: Sequence[int], counts: Counts) -> None:
        """Remove what stands at positions that this set has had, wherever it is, and what it added to sessions."""
        before = {position for (position,) in self._execute(
            f"SELECT position FROM tombstones{{0}} WHERE {OF_THESE} AND reason = 'erased'", (tenant, _json(positions))
        )}  # fmt: skip
        fresh = [position for position in dict.fromkeys(positions) if position not in before]
        values = (tenant, _json(fresh))
        dropped = self._execute(f"UPDATE tombstones{{0}} SET reason = 'erased' WHERE {OF_THESE}", values).rowcount
        quarantined = self._execute(f"DELETE FROM quarantine{{0}} WHERE {OF_THESE}", values).rowcount
        rows = self._execute(f"DELETE FROM events{{0}} WHERE {OF_THESE} RETURNING session_position, {COLUMNS}", values).fetchall()
        self._execute("INSERT OR IGNORE INTO tombstones{0} SELECT ?1, value, 'erased' FROM json_each(?2)", values)
        if rows:
            index_sessions(self._connection, self._suffix)
            deleted = [(EventRow(*row), session_position) for session_position, *row in rows]
            refold(self._connection, self._suffix, tenant, deleted)
        counts.dropped -= dropped
        counts.late_duplicates -= len(fresh) - dropped - quarantined - len(rows)
        counts.erased += len(fresh)

    def reason(self, tenant: str, position: int) -> str | None:
        """Why a position is in no table: dropped or erased; None when it is neither."""
        found = self._execute(
            "SELECT reason FROM tombstones{0} WHERE tenant_id = ? AND position = ?", (tenant, position)
        ).fetchone()
        return str(found[0]) if found else None

    # -- names -------------------------------------------------------------------------------------------------------

    def _suppress(self, tenant: str, control_record: control.Erase) -> None:
        """From here on, what has one of these names does not become a row."""
        names = _json([name for name in control_record.names if name])
        statement = "INSERT OR IGNORE INTO suppressions{0} SELECT ?1, ?2, value FROM json_each(?3)"
        self._execute(statement, (tenant, control_record.salt, names))

    def suppressed(self, tenant: str, named: Sequence[tuple[int, str, str]]) -> set[int]:
        """Which of some events, (position, event_hash, hash_parts), have names that were forgotten: their positions."""
        found: set[int] = set()
        for salt in self._salts(tenant):
            salted = hashlib.sha1(salt.encode(), usedforsecurity=False)
            at: dict[str, list[int]] = {}
            for position, event_hash, hash_parts in named:
                name = salted.copy()
                name.update(f"{event_hash}{hash_parts}".encode())
                at.setdefault(name.hexdigest(), []).append(position)
            statement = (
                "SELECT value FROM json_each(?3) CROSS JOIN suppressions{0} ON tenant_id = ?1 AND salt = ?2 AND name = value"
            )
            for (name_of_one,) in self._execute(statement, (tenant, salt, _json(list(at)))):
                found.update(at[name_of_one])
        return found

    def _salts(self, tenant: str) -> Iterator[str]:
        """A tenant's salts: one, unless its log was put together of several."""
        salt = ""
        while salt is not None:
            statement = "SELECT min(salt) FROM suppressions{0} WHERE tenant_id = ? AND salt > ?"
            [salt] = self._execute(statement, (tenant, salt)).fetchone()
            if salt is not None:
                yield salt

    def _execute(self, statement: str, values: Sequence[Any]) -> Any:
        """Execute a statement over tables of this set: {0} is its suffix."""
        return self._connection.execute(statement.format(self._suffix), values)


def names_of(rows: Sequence[EventRow]) -> list[tuple[int, str, str]]:
    """Rows as `suppressed` takes them."""
    return [(row.position, row.event_hash, row.hash_parts) for row in rows]


def _json(values: Sequence[Any]) -> str:
    return msgspec.json.encode(values).decode()
