"""How much each tenant may send, where that is not what the settings say; in a table of its own that no rebuild touches."""

import msgspec

from projector.store.sqlite.config_version import changed
from projector.store.sqlite.store import SqliteStore
from streams import LIMIT_NAMES, Limits

_COLUMNS = ", ".join(("tenant_id", *LIMIT_NAMES))


class TenantLimits(msgspec.Struct, frozen=True):
    """A tenant's own limits: None is what the settings say, 0 is no limit."""

    tenant_id: str
    events_per_second: int | None = None
    bytes_per_second: int | None = None
    events_per_day: int | None = None

    def over(self, defaults: Limits) -> Limits:
        """The limits in force."""
        own = {name: getattr(self, name) for name in LIMIT_NAMES}
        return msgspec.structs.replace(defaults, **{name: value for name, value in own.items() if value is not None})


def keep(store: SqliteStore, limits: TenantLimits) -> None:
    """Keep a tenant's own limits; those that say nothing are forgotten."""
    with store.transaction():
        store.execute("DELETE FROM tenant_limits WHERE tenant_id = ?", (limits.tenant_id,))
        if limits != TenantLimits(limits.tenant_id):
            store.execute(f"INSERT INTO tenant_limits ({_COLUMNS}) VALUES (?, ?, ?, ?)", msgspec.structs.astuple(limits))
        changed(store)


def load(store: SqliteStore) -> dict[str, TenantLimits]:
    """The limits of those tenants that have their own."""
    with store.reading() as connection:
        rows = connection.execute(f"SELECT {_COLUMNS} FROM tenant_limits ORDER BY tenant_id").fetchall()
    return {row[0]: TenantLimits(*row) for row in rows}
