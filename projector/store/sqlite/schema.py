"""The tables of SQLite: their columns, keys and indexes, and how a database gets them.

Seven tables make a set. The live set has plain names; a set being filled ends in __shadow, the one before in __previous.
Rows are clustered by (tenant_id, position), which is also the order in which they come. Identity is led by the event's
time, or by the client's own id, and sessions by the position of their first event instead of their name: each index
grows near an end, so inserts stay fast at ten million rows, where an index led by a hash or a random id had halved them.
"""

from typing import Any

from sqlite_utils import Database, Migrations

from projector.projection.project import PROJECTION_VERSION

LIVE, SHADOW, PREVIOUS, DROPPED = "", "__shadow", "__previous", "__dropped"
TABLES = ("events", "event_sessions", "identity_links", "quarantine", "tombstones", "suppressions", "checkpoints")

DEFAULT_GAP_US = 1_800_000_000

_MOMENT = (
    "TEXT AS (strftime('%Y-%m-%dT%H:%M:%S', ({0} - ({0} % 1000000 + 1000000) % 1000000) / 1000000, "
    "'unixepoch') "
    "|| printf('.%06dZ', ({0} % 1000000 + 1000000) % 1000000)) VIRTUAL"
)

_COLUMNS = {
    "events": f"""
        tenant_id TEXT NOT NULL,
        position INTEGER NOT NULL,
        event_hash TEXT NOT NULL,
        hash_parts TEXT NOT NULL,
        event_id TEXT,
        session_id TEXT NOT NULL,
        event_type TEXT NOT NULL,
        timestamp TEXT NOT NULL,
        timestamp_us INTEGER NOT NULL,
        timestamp_utc {_MOMENT.format("timestamp_us")},
        received_at_us INTEGER NOT NULL,
        received_at {_MOMENT.format("received_at_us")},
        properties TEXT NOT NULL,
        session_position INTEGER NOT NULL,
        identity TEXT NOT NULL DEFAULT '',
        PRIMARY KEY (tenant_id, position)""",
    "event_sessions": f"""
        tenant_id TEXT NOT NULL,
        first_position INTEGER NOT NULL,
        session_id TEXT NOT NULL,
        started_at_us INTEGER NOT NULL,
        started_at {_MOMENT.format("started_at_us")},
        last_event_at_us INTEGER NOT NULL,
        last_event_at {_MOMENT.format("last_event_at_us")},
        event_count INTEGER NOT NULL,
        first_event_type TEXT NOT NULL,
        last_event_type TEXT NOT NULL,
        user_id TEXT,
        anonymous_id TEXT,
        derived INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (tenant_id, first_position)""",
    "identity_links": """
        tenant_id TEXT NOT NULL,
        one TEXT NOT NULL,
        other TEXT NOT NULL,
        event_count INTEGER NOT NULL,
        PRIMARY KEY (tenant_id, one, other)""",
    "quarantine": f"""
        tenant_id TEXT NOT NULL,
        position INTEGER NOT NULL,
        received_at_us INTEGER NOT NULL,
        received_at {_MOMENT.format("received_at_us")},
        reason TEXT NOT NULL,
        detail TEXT NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (tenant_id, position)""",
    # which positions were dropped from quarantine, or erased: a record that is in no table, nor here, came twice, late
    "tombstones": """
        tenant_id TEXT NOT NULL,
        position INTEGER NOT NULL,
        reason TEXT NOT NULL,
        PRIMARY KEY (tenant_id, position)""",
    # salted names of events that were forgotten
    "suppressions": """
        tenant_id TEXT NOT NULL,
        salt TEXT NOT NULL,
        name TEXT NOT NULL,
        PRIMARY KEY (tenant_id, salt, name)""",
    "checkpoints": """
        tenant_id TEXT NOT NULL,
        position INTEGER NOT NULL,
        digest TEXT NOT NULL,
        late_duplicates INTEGER NOT NULL,
        dropped INTEGER NOT NULL DEFAULT 0,
        erased INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (tenant_id)""",
}

# What must be unique stands from the start; what only reads need is built last when a set is filled from the log.
_UNIQUE_INDEXES = {
    "events_by_name": "events (tenant_id, timestamp_us, event_hash, hash_parts) WHERE event_id IS NULL",
    "events_by_event_id": "events (tenant_id, event_id) WHERE event_id IS NOT NULL",
    # a client may send what is the name of a derived session, and that is another session
    "event_sessions_by_name": "event_sessions (tenant_id, session_id, derived * first_position)",
}
# What applying needs: an actor's events without a session, by time. It has no row for any other event.
_ACTOR_INDEXES = {"events_by_identity": "events (tenant_id, identity, timestamp_us) WHERE identity <> ''"}
_READ_INDEXES = {
    "events_by_time": "events (tenant_id, timestamp_us)",
    "events_by_type": "events (tenant_id, event_type, timestamp_us)",
    "events_by_session": "events (tenant_id, session_position, timestamp_us)",
    "event_sessions_by_time": "event_sessions (tenant_id, last_event_at_us)",
    "event_sessions_by_user": "event_sessions (tenant_id, user_id, last_event_at_us) WHERE user_id IS NOT NULL",
}

migrations = Migrations("penstock")


@migrations()
def create_live_tables(db: Database) -> None:
    """The first schema: which sets there are, what this database is called, and the live set."""
    db.execute(
        "CREATE TABLE table_sets (suffix TEXT NOT NULL PRIMARY KEY, generation INTEGER NOT NULL, "
        f"projection_version INTEGER NOT NULL, session_gap_us INTEGER NOT NULL DEFAULT {DEFAULT_GAP_US}) STRICT"
    )
    db.execute("CREATE TABLE database_identity (tables_id TEXT NOT NULL PRIMARY KEY) STRICT")
    db.execute("INSERT INTO database_identity VALUES (lower(hex(randomblob(8))))")
    create_set(db.conn, LIVE)
    create_read_indexes(db.conn, LIVE)


@migrations()
def create_api_keys(db: Database) -> None:
    """Who may speak for a tenant. In no set: a rebuild and a rollback leave it alone."""
    db.execute(
        "CREATE TABLE api_keys (tenant_id TEXT NOT NULL, key_id TEXT NOT NULL UNIQUE, key_hash BLOB NOT NULL UNIQUE, "
        "role TEXT NOT NULL, label TEXT NOT NULL, created_at_us INTEGER NOT NULL, last_used_at_us INTEGER, "
        "PRIMARY KEY (tenant_id, key_id)) STRICT, WITHOUT ROWID"
    )
    db.execute("CREATE TABLE api_keys_version (version INTEGER NOT NULL) STRICT")
    db.execute("INSERT INTO api_keys_version VALUES (0)")


@migrations()
def create_tenant_limits(db: Database) -> None:
    """How much a tenant may send, where that is not what the settings say; and which tenants were erased, by their digests.
    In no set, either. The version is of all that API processes keep in memory."""
    db.execute(
        "CREATE TABLE tenant_limits (tenant_id TEXT NOT NULL PRIMARY KEY, events_per_second INTEGER, bytes_per_second INTEGER, "
        "events_per_day INTEGER) STRICT, WITHOUT ROWID"
    )
    db.execute("CREATE TABLE deleted_tenants (tenant_digest TEXT NOT NULL PRIMARY KEY) STRICT, WITHOUT ROWID")
    db.execute("ALTER TABLE api_keys_version RENAME TO access_version")


@migrations()
def count_what_is_in_no_table(db: Database) -> None:
    """Columns of checkpoints for records that were dropped or erased; in every set, so that the previous one can come back."""
    for (suffix,) in db.execute("SELECT suffix FROM table_sets").fetchall():
        present = {column.name for column in db[f"checkpoints{suffix}"].columns}
        for column in ("dropped", "erased"):
            if column not in present:  # a new database has them from the first step on
                db.execute(f"ALTER TABLE checkpoints{suffix} ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0")


@migrations()
def create_tombstones(db: Database) -> None:
    """Tables of what was dropped or erased, and of the names that stay out; in every set."""
    for (suffix,) in db.execute("SELECT suffix FROM table_sets").fetchall():
        for table in ("tombstones", "suppressions"):
            db.execute(f"CREATE TABLE IF NOT EXISTS {table}{suffix} ({_COLUMNS[table]}) STRICT, WITHOUT ROWID")


@migrations()
def derive_sessions(db: Database) -> None:
    """What events without a session need; in every set, so that the previous one can come back. A new database has it from the
    first step on."""
    if "session_gap_us" in {column.name for column in db["table_sets"].columns}:
        return
    db.execute(f"ALTER TABLE table_sets ADD COLUMN session_gap_us INTEGER NOT NULL DEFAULT {DEFAULT_GAP_US}")
    for (suffix,) in db.execute("SELECT suffix FROM table_sets").fetchall():
        db.execute(f"ALTER TABLE events{suffix} ADD COLUMN identity TEXT NOT NULL DEFAULT ''")
        for column in ("user_id TEXT", "anonymous_id TEXT", "derived INTEGER NOT NULL DEFAULT 0"):
            db.execute(f"ALTER TABLE event_sessions{suffix} ADD COLUMN {column}")
        _create_table(db.conn, "identity_links", suffix)
        db.execute(f"DROP INDEX event_sessions_by_name_g{_generation(db.conn, suffix)}")
        _create_indexes(db.conn, suffix, _only(_UNIQUE_INDEXES, "event_sessions_by_name"), unique=True)
        _create_indexes(db.conn, suffix, _ACTOR_INDEXES | _only(_READ_INDEXES, "event_sessions_by_user"), unique=False)


def create_set(connection: Any, suffix: str, session_gap_us: int = DEFAULT_GAP_US) -> None:
    """Empty tables under a suffix, with the indexes that keep rows unique; their sessions will have that gap."""
    [generation] = connection.execute("SELECT coalesce(max(generation), 0) + 1 FROM table_sets").fetchone()
    connection.execute("INSERT INTO table_sets VALUES (?, ?, ?, ?)", (suffix, generation, PROJECTION_VERSION, session_gap_us))
    for table in _COLUMNS:
        _create_table(connection, table, suffix)
    _create_indexes(connection, suffix, _UNIQUE_INDEXES, unique=True)
    _create_indexes(connection, suffix, _ACTOR_INDEXES, unique=False)


def _create_table(connection: Any, table: str, suffix: str) -> None:
    rowid = "" if table == "quarantine" else ", WITHOUT ROWID"
    connection.execute(f"CREATE TABLE {table}{suffix} ({_COLUMNS[table]}) STRICT{rowid}")


def create_read_indexes(connection: Any, suffix: str) -> None:
    """The indexes that serve reads, one statement each."""
    _create_indexes(connection, suffix, _READ_INDEXES, unique=False)


def index_sessions(connection: Any, suffix: str) -> None:
    """The one index that finds a session's events, for a set that is being filled and has none that serve reads yet."""
    _create_indexes(connection, suffix, {"events_by_session": _READ_INDEXES["events_by_session"]}, unique=False)


def _create_indexes(connection: Any, suffix: str, indexes: dict[str, str], *, unique: bool) -> None:
    # An index keeps its name when its table is renamed, so the name carries the set's generation.
    generation = _generation(connection, suffix)
    kind = "UNIQUE INDEX" if unique else "INDEX"
    for name, on in indexes.items():
        table, columns = on.split(" ", 1)
        connection.execute(f"CREATE {kind} IF NOT EXISTS {name}_g{generation} ON {table}{suffix} {columns}")


def session_gap_of(connection: Any, suffix: str) -> int:
    """The longest gap within a derived session, in microseconds, with which a set was made."""
    [session_gap_us] = connection.execute("SELECT session_gap_us FROM table_sets WHERE suffix = ?", (suffix,)).fetchone()
    return int(session_gap_us)


def identity_index(connection: Any, suffix: str) -> str:
    """The name of the index by which a set's events without a session are found."""
    return f"events_by_identity_g{_generation(connection, suffix)}"


def live_generation(connection: Any) -> int:
    """The number that the live set's indexes end in."""
    return _generation(connection, LIVE)


def _only(indexes: dict[str, str], name: str) -> dict[str, str]:
    return {name: indexes[name]}


def _generation(connection: Any, suffix: str) -> int:
    [generation] = connection.execute("SELECT generation FROM table_sets WHERE suffix = ?", (suffix,)).fetchone()
    return int(generation)


def rename_set(connection: Any, old: str, new: str) -> None:
    """Give a set another suffix. Views of users keep naming the plain tables (legacy_alter_table is on)."""
    for table in TABLES:
        connection.execute(f"ALTER TABLE {table}{old} RENAME TO {table}{new}")
    connection.execute("UPDATE table_sets SET suffix = ? WHERE suffix = ?", (new, old))


def drop_set(connection: Any, suffix: str) -> None:
    """Remove a set, if it is there."""
    for table in TABLES:
        connection.execute(f"DROP TABLE IF EXISTS {table}{suffix}")
    connection.execute("DELETE FROM table_sets WHERE suffix = ?", (suffix,))
