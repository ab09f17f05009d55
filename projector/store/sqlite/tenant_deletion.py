"""Erasure: everything that the tables have of a tenant goes, and nothing of it comes back until it is created again.

What stands for the tenant is a digest of its name. It is looked for only where a tenant has no checkpoint, so it costs no
other tenant anything: the first step removes the checkpoint, and from there on no projector writes the tenant's rows.
"""

import time
from collections import Counter

from projector.store.sqlite.config_version import changed
from projector.store.sqlite.schema import LIVE, PREVIOUS
from projector.store.sqlite.store import SqliteStore
from streams import failpoint, keys_of

CHUNK_ROWS = 5_000
BREATH_SECONDS = 0.004  # for the projectors that wait for their turn to write
KEYS = {
    "events": "position",
    "event_sessions": "first_position",
    "identity_links": "one",
    "quarantine": "position",
    "tombstones": "position",
    "suppressions": "name",
}
KEPT = ("api_keys", "tenant_limits")


def delete_tenant(store: SqliteStore, tenant: str) -> Counter[str]:
    """Remove a tenant from every set of tables, with its keys and limits; how many rows of each table. Whoever calls has the
    right to rebuild, so no shadow set is being filled. Interrupt it at any moment and start it again. Raises StoreUnavailable."""
    store.drop_leftovers()
    removed: Counter[str] = Counter()
    # what is deleted is overwritten; only VACUUM reaches what pages that were split long ago still hold
    store.execute("PRAGMA secure_delete = ON")
    suffixes = [suffix for suffix in (LIVE, PREVIOUS) if store.has_set(suffix)]
    with store.transaction():
        store.execute("INSERT OR IGNORE INTO deleted_tenants VALUES (?)", (keys_of(tenant).digest,))
        for table in (*KEPT, *(f"checkpoints{suffix}" for suffix in suffixes)):
            removed[table.partition("__")[0]] += store.execute(f"DELETE FROM {table} WHERE tenant_id = ?", (tenant,)).rowcount
        changed(store)
    failpoint("during_deletion")
    for suffix in suffixes:
        for table, key in KEYS.items():
            removed[table] += _remove(store, f"{table}{suffix}", key, tenant)
    store.truncate_wal()
    return removed


def _remove(store: SqliteStore, table: str, key: str, tenant: str) -> int:
    """Remove a tenant's rows of a table, in transactions so short that projectors hardly notice; how many."""
    removed = 0
    some = f"SELECT {key} FROM {table} WHERE tenant_id = ?1 ORDER BY {key} LIMIT {CHUNK_ROWS}"
    while True:
        with store.transaction():
            count = store.execute(
                f"DELETE FROM {table} WHERE tenant_id = ?1 AND {key} <= (SELECT max({key}) FROM ({some}))", (tenant,)
            ).rowcount
        if not count:
            return removed
        removed += count
        time.sleep(BREATH_SECONDS)


def create(store: SqliteStore, tenant: str) -> bool:
    """Let a tenant that was erased begin again; whether it was."""
    with store.transaction():
        statement = "DELETE FROM deleted_tenants WHERE tenant_digest = ?"
        return bool(store.execute(statement, (keys_of(tenant).digest,)).rowcount)
