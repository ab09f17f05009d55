"""Records in quarantine, read from SQLite in pages.

No snapshot is kept open between two pages.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from projector.projection import QuarantineRow
from projector.store.sqlite.connection import SqliteFile, store_errors
from projector.store.structs import Entry, Outcomes, Selection

PAGE_ROWS = 200
_ROW = ", ".join(QuarantineRow.__struct_fields__)


class SqliteQuarantine:
    """The records in quarantine of the live tables, by tenant and position."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def entries(self, selection: Selection) -> Iterator[Entry]:
        """Records without their bodies."""
        columns = "tenant_id, position, received_at, reason, detail, length(body)"
        return (Entry(*row) for page in self._pages(columns, selection) for row in page)

    def pages(self, selection: Selection) -> Iterator[list[QuarantineRow]]:
        """Records with their bodies, in pages."""
        return ([QuarantineRow(*row) for row in page] for page in self._pages(_ROW, selection))

    def positions(self, selection: Selection) -> Iterator[list[int]]:
        """The positions of records, in pages."""
        return ([position for _, position in page] for page in self._pages("tenant_id, position", selection))

    def count(self, selection: Selection) -> int:
        """How many records there are."""
        where, values = _where(selection)
        with store_errors():
            [count] = self._file.execute(f"SELECT count(*) FROM quarantine WHERE {where}", values).fetchone()
        return int(count)

    def find(self, tenant: str, position: int) -> QuarantineRow | None:
        """The record at a position, or None."""
        return next((row for [row] in self.pages(Selection(tenant, [position]))), None)

    def outcomes(self, tenant: str, positions: Sequence[int]) -> Outcomes:
        """What stands at positions now."""
        counts = {"events": 0, "quarantine": 0}
        for begin in range(0, len(positions), PAGE_ROWS):
            page = msgspec.json.encode(list(positions[begin : begin + PAGE_ROWS])).decode()
            for table in counts:
                statement = f"SELECT count(*) FROM {table} WHERE tenant_id = ? AND position IN (SELECT value FROM json_each(?))"
                with store_errors():
                    counts[table] += self._file.execute(statement, (tenant, page)).fetchone()[0]
        return Outcomes(counts["events"], counts["quarantine"], len(positions) - sum(counts.values()))

    def _pages(self, columns: str, selection: Selection) -> Iterator[list[tuple[Any, ...]]]:
        """Rows in pages, each read whole. The columns begin with the key."""
        where, values = _where(selection)
        place: tuple[Any, ...] = ("", 0)
        statement = (
            f"SELECT {columns} FROM quarantine WHERE (tenant_id, position) > (?, ?) AND {where} "
            f"ORDER BY tenant_id, position LIMIT {PAGE_ROWS}"
        )
        while True:
            with store_errors():
                page = self._file.execute(statement, [*place, *values]).fetchall()
            if not page:
                return
            yield page
            place = page[-1][:2]


def _where(selection: Selection) -> tuple[str, list[Any]]:
    """The condition that a selection is, and its values."""
    conditions, values = ["1"], list[Any]()
    if selection.tenant is not None:
        conditions.append("tenant_id = ?")
        values.append(selection.tenant)
    if selection.positions:
        conditions.append("position IN (SELECT value FROM json_each(?))")
        values.append(msgspec.json.encode(selection.positions).decode())
    if selection.reason is not None:
        conditions.append("reason = ?")
        values.append(selection.reason)
    if selection.through is not None:
        conditions.append("position <= ?")
        values.append(selection.through)
    return " AND ".join(conditions), values
