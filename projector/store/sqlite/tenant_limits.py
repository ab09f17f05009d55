"""The limits of single tenants in SQLite; no rebuild touches them."""

import msgspec

from projector.store.sqlite.api_keys import change_config_version
from projector.store.sqlite.connection import SqliteFile
from projector.store.structs import TenantLimits

_COLUMNS = ", ".join(TenantLimits.__struct_fields__)


class SqliteTenantLimits:
    """The limits of those tenants that have their own."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def keep(self, limits: TenantLimits) -> None:
        """Keep a tenant's own limits; limits that are all None are removed."""
        with self._file.transaction():
            self._file.execute("DELETE FROM tenant_limits WHERE tenant_id = ?", (limits.tenant_id,))
            if limits != TenantLimits(limits.tenant_id):
                values = msgspec.structs.astuple(limits)
                self._file.execute(f"INSERT INTO tenant_limits ({_COLUMNS}) VALUES (?, ?, ?, ?)", values)
            change_config_version(self._file)

    def load(self) -> dict[str, TenantLimits]:
        """The own limits, by tenant."""
        with self._file.reading() as connection:
            rows = connection.execute(f"SELECT {_COLUMNS} FROM tenant_limits ORDER BY tenant_id").fetchall()
        return {row[0]: TenantLimits(*row) for row in rows}
