"""The version of who may do what: keys and limits. A process sees with one small read whether what it has in memory is up to
date. It is random: a database that was restored must not have the version of another state.
"""

from projector.store.sqlite.store import SqliteStore


def changed(store: SqliteStore) -> None:
    """Give what is kept of tenants another version, within the caller's transaction."""
    store.execute("UPDATE access_version SET version = random()")


def version(store: SqliteStore) -> int:
    """A number that is another after each change."""
    with store.reading() as connection:
        return int(connection.execute("SELECT version FROM access_version").fetchone()[0])
