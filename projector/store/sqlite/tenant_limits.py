"""The limits of single tenants in SQLite; no rebuild touches them."""

import msgspec
from sqlite_utils import Database

from projector.store.sqlite.api_keys import change_config_version
from projector.store.sqlite.connection import SqliteFile
from projector.store.structs import TenantLimits


class SqliteTenantLimits:
    """The limits of those tenants that have their own."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def keep(self, limits: TenantLimits) -> None:
        """Keep a tenant's own limits; limits that are all None are removed."""
        with self._file.transaction():
            table = self._file.table("tenant_limits")
            table.delete_where("tenant_id = ?", [limits.tenant_id])
            if limits != TenantLimits(limits.tenant_id):
                table.insert(msgspec.structs.asdict(limits))
            change_config_version(self._file)

    def load(self) -> dict[str, TenantLimits]:
        """The own limits, by tenant."""
        with self._file.reading() as connection:
            rows = Database(connection).table("tenant_limits").rows_where(order_by="tenant_id")
            return {row["tenant_id"]: TenantLimits(**row) for row in rows}
