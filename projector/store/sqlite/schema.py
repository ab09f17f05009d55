"""A set of tables in SQLite: its columns, keys and indexes.

Seven tables make a set. The live set has plain names; those of the shadow set end in __shadow, of the previous in __previous.
Rows are clustered by (tenant_id, position), which is also the order in which they come. The identity index is led by the
event's time, or by the client's own id, and the session key by the position of the first event instead of a name: each index
grows near an end, so inserts stay fast at ten million rows, where an index led by a hash or a random id had halved them.
"""

from typing import Any

from projector.projection import PROJECTION_VERSION
from projector.store.structs import SetName

LIVE, SHADOW, PREVIOUS, NEXT, DROPPED = "", "__shadow", "__previous", "__next", "__dropped"
SUFFIXES = {SetName.LIVE: LIVE, SetName.SHADOW: SHADOW, SetName.PREVIOUS: PREVIOUS}
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
        identity TEXT NOT NULL,
        linked_identity TEXT NOT NULL,
        event_count INTEGER NOT NULL,
        PRIMARY KEY (tenant_id, identity, linked_identity)""",
    "quarantine": f"""
        tenant_id TEXT NOT NULL,
        position INTEGER NOT NULL,
        received_at_us INTEGER NOT NULL,
        received_at {_MOMENT.format("received_at_us")},
        reason TEXT NOT NULL,
        detail TEXT NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (tenant_id, position)""",
    # positions that were dropped from quarantine, or erased; a record in no table, and not here either, is a late duplicate
    "tombstones": """
        tenant_id TEXT NOT NULL,
        position INTEGER NOT NULL,
        reason TEXT NOT NULL,
        PRIMARY KEY (tenant_id, position)""",
    # salted names of erased events, which do not become rows again
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

# Unique indexes are there from the start; what only reads need is built last when a set is filled from the log.
_UNIQUE_INDEXES = {
    "events_by_name": "events (tenant_id, timestamp_us, event_hash, hash_parts) WHERE event_id IS NULL",
    "events_by_event_id": "events (tenant_id, event_id) WHERE event_id IS NOT NULL",
    # a client may send the name of a derived session; that makes a second session of the same name
    "event_sessions_by_name": "event_sessions (tenant_id, session_id, derived * first_position)",
}
# What applying needs: an actor's events without a session, by time. It has no entry for any other event.
_ACTOR_INDEXES = {"events_by_identity": "events (tenant_id, identity, timestamp_us) WHERE identity <> ''"}
_READ_INDEXES = {
    "events_by_time": "events (tenant_id, timestamp_us)",
    "events_by_type": "events (tenant_id, event_type, timestamp_us)",
    "events_by_session": "events (tenant_id, session_position, timestamp_us)",
    "event_sessions_by_time": "event_sessions (tenant_id, last_event_at_us)",
    "event_sessions_by_user": "event_sessions (tenant_id, user_id, last_event_at_us) WHERE user_id IS NOT NULL",
}


def create_set(connection: Any, suffix: str, session_gap_us: int = DEFAULT_GAP_US) -> None:
    """Create empty tables under a suffix.

    They have the indexes that applying needs, and their derived sessions that gap.
    """
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
    """Create the indexes that serve reads, one statement each."""
    _create_indexes(connection, suffix, _READ_INDEXES, unique=False)


def index_sessions(connection: Any, suffix: str) -> None:
    """Create the index that finds a session's events.

    It is for a set that is being filled and has no read indexes yet.
    """
    _create_indexes(connection, suffix, {"events_by_session": _READ_INDEXES["events_by_session"]}, unique=False)


def _create_indexes(connection: Any, suffix: str, indexes: dict[str, str], *, unique: bool) -> None:
    # An index keeps its name when its table is renamed, so the name carries the set's generation.
    generation = _generation(connection, suffix)
    kind = "UNIQUE INDEX" if unique else "INDEX"
    for name, on in indexes.items():
        table, columns = on.split(" ", 1)
        connection.execute(f"CREATE {kind} IF NOT EXISTS {name}_g{generation} ON {table}{suffix} {columns}")


def session_gap_of(connection: Any, suffix: str) -> int:
    """The longest gap within a derived session of a set, in microseconds."""
    [session_gap_us] = connection.execute("SELECT session_gap_us FROM table_sets WHERE suffix = ?", (suffix,)).fetchone()
    return int(session_gap_us)


def identity_index(connection: Any, suffix: str) -> str:
    """The name of the index that finds a set's events without a session."""
    return f"events_by_identity_g{_generation(connection, suffix)}"


def live_generation(connection: Any) -> int:
    """The number that the live set's indexes end in."""
    return _generation(connection, LIVE)


def _generation(connection: Any, suffix: str) -> int:
    [generation] = connection.execute("SELECT generation FROM table_sets WHERE suffix = ?", (suffix,)).fetchone()
    return int(generation)


def has_set(connection: Any, suffix: str) -> bool:
    """Whether there is a set under a suffix."""
    return bool(connection.execute("SELECT 1 FROM table_sets WHERE suffix = ?", (suffix,)).fetchone())


def rename_set(connection: Any, old: str, new: str) -> None:
    """Give a set another suffix.

    Views of users keep naming the plain tables (legacy_alter_table is on).
    """
    for table in TABLES:
        connection.execute(f"ALTER TABLE {table}{old} RENAME TO {table}{new}")
    connection.execute("UPDATE table_sets SET suffix = ? WHERE suffix = ?", (new, old))


def drop_set(connection: Any, suffix: str) -> None:
    """Remove a set, if it is there."""
    for table in TABLES:
        connection.execute(f"DROP TABLE IF EXISTS {table}{suffix}")
    connection.execute("DELETE FROM table_sets WHERE suffix = ?", (suffix,))
