"""How a database file gets its tables.

Sqlite-utils remembers which steps it has had.
"""

from sqlite_utils import Database, Migrations

from projector.store.sqlite.schema import DEFAULT_GAP_US, LIVE, create_read_indexes, create_set

migrations = Migrations("penstock")


@migrations()
def create_tables(db: Database) -> None:
    """Create the live set, and the tables that are in no set.

    Keys, limits and deleted tenants are in no set: a rebuild and a rollback leave them alone. `config_version` changes with
    every key and limit, so that API processes see by one small read whether what they have in memory still holds. It is
    random: a restored database must not have the version of another state.
    """
    db.execute(
        "CREATE TABLE table_sets (suffix TEXT NOT NULL PRIMARY KEY, generation INTEGER NOT NULL, "
        f"projection_version INTEGER NOT NULL, session_gap_us INTEGER NOT NULL DEFAULT {DEFAULT_GAP_US}) STRICT"
    )
    db.execute("CREATE TABLE database_identity (tables_id TEXT NOT NULL PRIMARY KEY) STRICT")
    db.execute("INSERT INTO database_identity VALUES (lower(hex(randomblob(8))))")
    db.execute(
        "CREATE TABLE api_keys (tenant_id TEXT NOT NULL, key_id TEXT NOT NULL UNIQUE, key_hash BLOB NOT NULL UNIQUE, "
        "role TEXT NOT NULL, label TEXT NOT NULL, created_at_us INTEGER NOT NULL, last_used_at_us INTEGER, "
        "PRIMARY KEY (tenant_id, key_id)) STRICT, WITHOUT ROWID"
    )
    db.execute(
        "CREATE TABLE tenant_limits (tenant_id TEXT NOT NULL PRIMARY KEY, events_per_second INTEGER, bytes_per_second INTEGER, "
        "events_per_day INTEGER) STRICT, WITHOUT ROWID"
    )
    db.execute("CREATE TABLE deleted_tenants (tenant_digest TEXT NOT NULL PRIMARY KEY) STRICT, WITHOUT ROWID")
    db.execute("CREATE TABLE config_version (version INTEGER NOT NULL) STRICT")
    db.execute("INSERT INTO config_version VALUES (0)")
    create_set(db.conn, LIVE)
    create_read_indexes(db.conn, LIVE)
