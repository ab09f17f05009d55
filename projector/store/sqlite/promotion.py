"""The swap of sets, within the caller's transaction."""

from collections.abc import Sequence
from typing import Any

from projector.projection import Batch, Checkpoint
from projector.store.sqlite.schema import DROPPED, LIVE, NEXT, PREVIOUS, SHADOW, TABLES, has_set, rename_set
from projector.store.sqlite.table_reader import TableReader
from projector.store.sqlite.table_set import TableSet


class SqliteSwap:
    """A set that is about to take the place of the live one."""

    def __init__(self, connection: Any, suffix: str) -> None:
        self._connection = connection
        self._suffix = suffix
        self._tables = TableSet(connection, suffix)

    def checkpoints(self) -> dict[str, Checkpoint]:
        """How far the set is, by tenant."""
        return self._tables.checkpoints()

    def live_checkpoints(self) -> dict[str, Checkpoint]:
        """How far the live set is, by tenant."""
        return TableReader(self._connection).checkpoints()

    def apply(self, batch: Batch) -> bool:
        """Write a batch to the set.

        Returns False when it does not begin at the checkpoint.
        """
        return self._tables.apply(batch)

    def promote(self) -> None:
        """Make the set the live one; the live one becomes the previous."""
        if self._suffix != PREVIOUS and has_set(self._connection, PREVIOUS):
            rename_set(self._connection, PREVIOUS, DROPPED)
        rename_set(self._connection, self._suffix, NEXT)
        rename_set(self._connection, LIVE, PREVIOUS)
        rename_set(self._connection, NEXT, LIVE)
        self._erase_from_previous()

    def replace_tenants(self, tenants: Sequence[str]) -> None:
        """Put the rows of some tenants in the place of their live rows."""
        for tenant in tenants:
            for table in TABLES:
                columns = ", ".join(
                    name for _, name, *_, hidden in self._connection.execute(f"PRAGMA table_xinfo({table})") if not hidden
                )
                self._connection.execute(f"DELETE FROM {table} WHERE tenant_id = ?", (tenant,))
                self._connection.execute(
                    f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {table}{SHADOW} WHERE tenant_id = ?", (tenant,)
                )
        self._erase_from_previous()

    def _erase_from_previous(self) -> None:
        """Erase from the previous set those records that the live set has erased."""
        if not has_set(self._connection, PREVIOUS):
            return
        held = " OR ".join(
            f"EXISTS (SELECT 1 FROM {table}{PREVIOUS} AS held "
            "WHERE held.tenant_id = tombstones.tenant_id AND held.position = tombstones.position)"
            for table in ("events", "quarantine")
        )
        erased: dict[str, list[int]] = {}
        for tenant, position in self._connection.execute(
            f"SELECT tenant_id, position FROM tombstones WHERE reason = 'erased' AND ({held})"
        ):
            erased.setdefault(tenant, []).append(position)
        for tenant, positions in erased.items():
            TableSet(self._connection, PREVIOUS).erase(tenant, positions)
