"""What the rest of Penstock needs of a database of tables, and how one is opened."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from projector.store.sqlite.store import SqliteStore


class StoreUnavailable(Exception):
    """The tables cannot be read or written now: locked, disk full, or an I/O error."""


class StoreReplaced(StoreUnavailable):
    """The database file was removed, or another was put in its place: it must be opened again."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


class OtherProjection(Exception):
    """The tables were made by another version of the projection; this process leaves them alone."""

    def __init__(self, theirs: int, ours: int) -> None:
        super().__init__(
            f"the tables were made by projection version {theirs}, this is version {ours}: "
            "run `python -m projector rebuild` with the version that shall serve, or `rollback` with the one before"
        )


class RebuildRunning(Exception):
    """Another rebuild or rollback of these tables is running."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


def open_store(
    url: str, *, cache_mib: int = 256, busy_seconds: float = 10.0, session_gap_seconds: float = 1_800.0
) -> "SqliteStore":
    """The store that a DATABASE_URL names, to be used as a context manager. It waits so long for another that writes; sets of
    tables that it makes have that gap."""
    from projector.store.sqlite.store import SqliteStore

    path, session_gap_us = url.removeprefix("sqlite:///"), round(session_gap_seconds * 1_000_000)
    return SqliteStore(path, session_gap_us=session_gap_us, cache_mib=cache_mib, busy_seconds=busy_seconds)
