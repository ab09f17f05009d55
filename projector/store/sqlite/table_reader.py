"""One set of SQLite tables, read over one connection."""

from collections.abc import Iterator
from typing import Any

from projector.projection import NO_CHECKPOINT, Checkpoint
from projector.store.sqlite.columns import CHECKPOINT
from projector.store.sqlite.schema import LIVE
from projector.store.structs import KEYS, TenantState
from streams import keys_of


class TableReader:
    """The tables under one suffix."""

    def __init__(self, connection: Any, suffix: str = LIVE) -> None:
        self._connection = connection
        self._suffix = suffix

    def checkpoint(self, tenant: str) -> Checkpoint:
        """A tenant's checkpoint; position 0 for a tenant without rows."""
        row = self._connection.execute(
            f"SELECT {CHECKPOINT} FROM checkpoints{self._suffix} WHERE tenant_id = ?", (tenant,)
        ).fetchone()
        return Checkpoint(*row) if row else NO_CHECKPOINT

    def checkpoints(self) -> dict[str, Checkpoint]:
        """The checkpoint of every tenant that has one, by tenant."""
        rows = self._connection.execute(f"SELECT tenant_id, {CHECKPOINT} FROM checkpoints{self._suffix} ORDER BY tenant_id")
        return {tenant: Checkpoint(*checkpoint) for tenant, *checkpoint in rows}

    def state(self, tenant: str) -> TenantState:
        """A tenant's checkpoint, and whether it was deleted."""
        checkpoint = self.checkpoint(tenant)
        return TenantState(checkpoint, checkpoint is NO_CHECKPOINT and self.is_deleted(tenant))

    def is_deleted(self, tenant: str) -> bool:
        """Whether a tenant was deleted and not created again.

        Such a tenant has no checkpoint.
        """
        row = self._connection.execute("SELECT 1 FROM deleted_tenants WHERE tenant_digest = ?", (keys_of(tenant).digest,))
        return row.fetchone() is not None

    def count(self, table: str, tenant: str) -> int:
        """How many rows of a tenant one table has, counted."""
        [count] = self._connection.execute(
            f"SELECT count(*) FROM {table}{self._suffix} WHERE tenant_id = ?", (tenant,)
        ).fetchone()
        return int(count)

    def rows(self, table: str, tenant: str, *, begin: int = 0) -> Iterator[dict[str, Any]]:
        """A tenant's rows of one table, in order of their key.

        With `begin`, only rows of positions from there on, and the sessions that have an event there.
        """
        key = ", ".join(KEYS[table])
        touched = f"SELECT session_position FROM events{self._suffix} WHERE tenant_id = ?1 AND position >= ?2"
        narrowed = f"{key} IN ({touched})" if table == "event_sessions" else f"{key} >= ?2"
        yield from self._mappings(table, narrowed if begin else "?2 = 0", key, (tenant, begin))

    def row(self, table: str, tenant: str, key: int) -> dict[str, Any] | None:
        """A tenant's row of one table, by its key."""
        [column] = KEYS[table]
        return next(self._mappings(table, f"{column} = ?2", column, (tenant, key)), None)

    def _mappings(self, table: str, where: str, key: str, values: tuple[str, int]) -> Iterator[dict[str, Any]]:
        statement = f"SELECT * FROM {table}{self._suffix} WHERE tenant_id = ?1 AND {where} ORDER BY {key}"
        cursor = self._connection.execute(statement, values)
        columns = [column[0] for column in cursor.description]
        for row in cursor:
            yield dict(zip(columns, row, strict=True))

    def first_received(self, tenant: str, moment_us: int) -> int | None:
        """The first position received at a time or later, or None.

        It is that of a row, or of a record in quarantine.
        """
        first = "SELECT position FROM {} WHERE tenant_id = ?1 AND received_at_us >= ?2 ORDER BY position LIMIT 1"
        both = " UNION ALL ".join(f"SELECT * FROM ({first.format(table + self._suffix)})" for table in ("events", "quarantine"))
        first_of_both: tuple[int | None] = self._connection.execute(
            f"SELECT min(position) FROM ({both})", (tenant, moment_us)
        ).fetchone()
        return first_of_both[0]

    def removal_reason(self, tenant: str, position: int) -> str | None:
        """Why a position is in no table: dropped or erased.

        Returns None when it is neither.
        """
        row = self._connection.execute(
            f"SELECT reason FROM tombstones{self._suffix} WHERE tenant_id = ? AND position = ?", (tenant, position)
        ).fetchone()
        return str(row[0]) if row else None
