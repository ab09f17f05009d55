"""A SQLite file rewritten, so that no page holds deleted rows."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pysqlite3

from projector.store.errors import StoreUnavailable
from projector.store.sqlite.connection import SqliteFile, read_only, store_errors
from streams.runtime import failpoint

TRIES = 10
STEPS = 100  # of copying back: before each, a look whether another process has written
COPY_CACHE_MIB = 16
COPY_INSTRUCTIONS = 200  # of SQLite, about 60 rows: how often a copy looks whether it is stopped


class _WrittenMeanwhile(Exception):
    """Another process wrote to the file after it was copied."""


def copy_to(file: SqliteFile, path: str, is_stopped: Callable[[], bool] | None = None) -> None:
    """Write the database as it is now to a new file.

    What was deleted is not in it. Raises StoreUnavailable once `is_stopped` returns True.
    """
    with store_errors():
        with closing(file.connect_alone(read_only(file.path), COPY_CACHE_MIB)) as connection:
            connection.set_progress_handler(is_stopped, COPY_INSTRUCTIONS)
            connection.execute("VACUUM INTO ?", (path,))


def rewrite(file: SqliteFile, path: str) -> None:
    """Rewrite the file without what was deleted, by way of a copy.

    VACUUM would hold all of it in memory, as SQLite is built here. Raises StoreUnavailable, also when other processes wrote
    between the copy and the way back in each of several tries.
    """
    with store_errors():
        for _ in range(TRIES):
            Path(path).unlink(missing_ok=True)
            if _copy_and_back(file, path):
                return
    raise StoreUnavailable("other processes write to the tables all the time; try again")


def _copy_and_back(file: SqliteFile, path: str) -> bool:
    """Copy the file and copy it back.

    Returns False, with nothing changed, when another process wrote in between.
    """
    watching = file.connect(read_only(file.path), 1)
    opened = [watching]

    def version() -> Any:
        """A number that every write changes."""
        return watching.execute("PRAGMA data_version").fetchone()

    def look(status: int, *_: int) -> None:
        if status == pysqlite3.SQLITE_OK and version() != copied:  # once the backup writes, no other process does
            raise _WrittenMeanwhile

    try:
        with file.transaction():  # no process writes while this is open; it must be closed on the way back
            copy_to(file, path)
            copied = version()
        failpoint("between_copy_and_back")
        copy = file.connect(read_only(path), 1)
        opened.append(copy)
        [pages] = copy.execute("PRAGMA page_count").fetchone()
        file.restore_from(copy, pages=-(-pages // STEPS), progress=look)
        return True
    except _WrittenMeanwhile:
        return False
    finally:
        for connection in opened:
            file.close_connection(connection)
