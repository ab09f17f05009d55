"""The keys that tenants are spoken for with, in a table of their own that no rebuild touches. Only their hashes are kept."""

from collections.abc import Mapping

import msgspec

from projector.store.sqlite.config_version import changed
from projector.store.sqlite.store import SqliteStore

_COLUMNS = "tenant_id, key_id, key_hash, role, label, created_at_us, last_used_at_us"


class ApiKey(msgspec.Struct, frozen=True):
    """A key as it is kept: what it begins with, its SHA-256, whose it is and what it may do. Times in microseconds."""

    tenant_id: str
    key_id: str
    key_hash: bytes
    role: str
    label: str
    created_at_us: int
    last_used_at_us: int | None = None


def add(store: SqliteStore, key: ApiKey) -> None:
    """Keep a new key."""
    with store.transaction():
        marks = ", ".join("?" * len(ApiKey.__struct_fields__))
        store.execute(f"INSERT INTO api_keys ({_COLUMNS}) VALUES ({marks})", msgspec.structs.astuple(key))
        changed(store)


def revoke(store: SqliteStore, key_id: str) -> bool:
    """Forget a key; whether there was one."""
    with store.transaction():
        found = store.execute("DELETE FROM api_keys WHERE key_id = ?", (key_id,)).rowcount
        changed(store)
    return bool(found)


def note_uses(store: SqliteStore, used_at_us: Mapping[bytes, int]) -> None:
    """Keep when keys, named by their hashes, were last used; a later time that another process kept stays."""
    with store.transaction():
        for key_hash, moment_us in used_at_us.items():
            store.execute(
                "UPDATE api_keys SET last_used_at_us = max(coalesce(last_used_at_us, 0), ?) WHERE key_hash = ?",
                (moment_us, key_hash),
            )


def load(store: SqliteStore) -> list[ApiKey]:
    """All keys, by tenant, oldest first."""
    with store.reading() as connection:
        rows = connection.execute(f"SELECT {_COLUMNS} FROM api_keys ORDER BY tenant_id, created_at_us").fetchall()
    return [ApiKey(*row) for row in rows]
