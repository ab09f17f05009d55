"""API keys in SQLite, in a table that no rebuild touches.

Only the hashes of keys are kept.
"""

from collections.abc import Mapping

import msgspec
from sqlite_utils import Database

from projector.store.sqlite.connection import SqliteFile
from projector.store.structs import ApiKey


class SqliteApiKeys:
    """The keys of all tenants."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def add(self, key: ApiKey) -> None:
        """Keep a new key."""
        with self._file.transaction():
            self._file.table("api_keys").insert(msgspec.structs.asdict(key))
            change_config_version(self._file)

    def revoke(self, key_id: str) -> bool:
        """Remove a key; False when there is none of that id."""
        with self._file.transaction():
            revoked = self._file.execute("DELETE FROM api_keys WHERE key_id = ?", (key_id,)).rowcount
            change_config_version(self._file)
        return bool(revoked)

    def note_uses(self, used_at_us: Mapping[bytes, int]) -> None:
        """Keep when keys, given by their hashes, were last used.

        A later use that is kept already stays.
        """
        with self._file.transaction():
            for key_hash, moment_us in used_at_us.items():
                self._file.execute(
                    "UPDATE api_keys SET last_used_at_us = max(coalesce(last_used_at_us, 0), ?) WHERE key_hash = ?",
                    (moment_us, key_hash),
                )

    def load(self) -> list[ApiKey]:
        """All keys, by tenant, oldest first."""
        with self._file.reading() as connection:
            rows = Database(connection).table("api_keys").rows_where(order_by="tenant_id, created_at_us")
            return [ApiKey(**row) for row in rows]


def change_config_version(file: SqliteFile) -> None:
    """Give keys and limits a new version, within the caller's transaction."""
    file.execute("UPDATE config_version SET version = random()")
