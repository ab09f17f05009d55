"""What tests read from the tables."""

from typing import Any

from projector.store.sqlite import SqliteStore

TABLES = {
    "events": "tenant_id, position",
    "event_sessions": "tenant_id, first_position",
    "identity_links": "tenant_id, identity, linked_identity",
    "quarantine": "tenant_id, position",
    "tombstones": "tenant_id, position",
    "suppressions": "tenant_id, salt, name",
    "checkpoints": "tenant_id",
}


def dump(store: SqliteStore) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the live tables."""
    with store.reading() as connection:
        return {table: connection.execute(f"SELECT * FROM {table} ORDER BY {key}").fetchall() for table, key in TABLES.items()}


def dump_memory(store: SqliteStore) -> dict[str, list[tuple[Any, ...]]]:
    with store.transaction():
        return {
            table: store._connection.execute(f"SELECT * FROM {table} ORDER BY {key}").fetchall() for table, key in TABLES.items()
        }


def quarantined(store: SqliteStore) -> list[int]:
    return [row[1] for row in dump(store)["quarantine"]]


def rows_of(store: SqliteStore, what: str = "SELECT tenant_id, position FROM events ORDER BY 1, 2") -> list[tuple[Any, ...]]:
    with store.reading() as connection:
        return [tuple(row) for row in connection.execute(what)]


def positions_of(store: SqliteStore, tenant: str = "acme") -> list[int]:
    return [position for of, position in rows_of(store) if of == tenant]


def quarantine_of(store: SqliteStore) -> list[tuple[Any, ...]]:
    return rows_of(store, "SELECT position, reason FROM quarantine ORDER BY 1")


def checkpoint_of(store: SqliteStore, tenant: str = "acme") -> int:
    return store.tables().checkpoint(tenant).position


def count_in_sessions(store: SqliteStore) -> int:
    return int(rows_of(store, "SELECT coalesce(sum(event_count), 0) FROM event_sessions")[0][0])
