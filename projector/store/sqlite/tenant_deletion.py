"""Deletion of a tenant from SQLite.

All of its rows go, and none comes back until the tenant is created again.

What is left is a digest of its name. It is looked up only for a tenant without a checkpoint, so it costs other tenants nothing:
the first step removes the checkpoint, and from there on no projector writes rows of the tenant.
"""

import time
from collections import Counter
from collections.abc import Sequence

from projector.store.sqlite.api_keys import change_config_version
from projector.store.sqlite.connection import SqliteFile
from streams import keys_of
from streams.runtime import failpoint

CHUNK_ROWS = 5_000
BREATH_SECONDS = 0.004  # for the projectors that wait to write
KEYS = {
    "events": "position",
    "event_sessions": "first_position",
    "identity_links": "identity",
    "quarantine": "position",
    "tombstones": "position",
    "suppressions": "name",
}
TABLES_IN_NO_SET = ("api_keys", "tenant_limits")


def delete_tenant(file: SqliteFile, tenant: str, suffixes: Sequence[str]) -> Counter[str]:
    """Remove a tenant with its keys and limits; counts by table.

    It may be interrupted at any moment and started again.
    """
    removed: Counter[str] = Counter()
    # what is deleted is overwritten; pages that were split long ago may still hold it until VACUUM
    file.execute("PRAGMA secure_delete = ON")
    with file.transaction():
        file.execute("INSERT OR IGNORE INTO deleted_tenants VALUES (?)", (keys_of(tenant).digest,))
        for table in (*TABLES_IN_NO_SET, *(f"checkpoints{suffix}" for suffix in suffixes)):
            removed[table.partition("__")[0]] += file.execute(f"DELETE FROM {table} WHERE tenant_id = ?", (tenant,)).rowcount
        change_config_version(file)
    failpoint("during_deletion")
    for suffix in suffixes:
        for table, key in KEYS.items():
            removed[table] += _remove(file, f"{table}{suffix}", key, tenant)
    file.truncate_wal()
    return removed


def _remove(file: SqliteFile, table: str, key: str, tenant: str) -> int:
    """Remove a tenant's rows of a table; how many.

    The transactions are so short that projectors hardly notice.
    """
    removed = 0
    first_keys = f"SELECT {key} FROM {table} WHERE tenant_id = ?1 ORDER BY {key} LIMIT {CHUNK_ROWS}"
    while True:
        with file.transaction():
            count = file.execute(
                f"DELETE FROM {table} WHERE tenant_id = ?1 AND {key} <= (SELECT max({key}) FROM ({first_keys}))", (tenant,)
            ).rowcount
        if not count:
            return removed
        removed += count
        time.sleep(BREATH_SECONDS)


def create_tenant(file: SqliteFile, tenant: str) -> bool:
    """Let a tenant that was deleted begin again.

    Returns False when it was not deleted.
    """
    with file.transaction():
        statement = "DELETE FROM deleted_tenants WHERE tenant_digest = ?"
        return bool(file.execute(statement, (keys_of(tenant).digest,)).rowcount)
