"""What the rest of Penstock needs of a database of tables, and how one is opened."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from projector.store.sqlite.store import SqliteStore


def open_store(
    url: str, *, cache_mib: int = 256, busy_seconds: float = 10.0, session_gap_seconds: float = 1_800.0
) -> "SqliteStore":
    """The store that a DATABASE_URL names, to be used as a context manager. It waits so long for another that writes; sets of
    tables that it makes have that gap."""
    from projector.store.sqlite.store import SqliteStore

    path, session_gap_us = url.removeprefix("sqlite:///"), round(session_gap_seconds * 1_000_000)
    return SqliteStore(path, session_gap_us=session_gap_us, cache_mib=cache_mib, busy_seconds=busy_seconds)
