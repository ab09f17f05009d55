"""A copy of the tables as they are at one moment.

Everything goes on meanwhile. The copy holds nothing of what was deleted.
"""

import os
from collections.abc import Callable
from pathlib import Path

from projector.store.errors import OutputExists
from projector.store.files import publish
from projector.store.sqlite.connection import SqliteFile, store_errors
from projector.store.sqlite.vacuum import copy_to
from streams.runtime import sync

SIDE_FILES = ("-journal", "-wal", "-shm")  # SQLite keeps them beside a database


def copy(file: SqliteFile, path: str, is_stopped: Callable[[], bool]) -> int:
    """Copy the tables to a new file; its size in bytes.

    The file appears when it is complete, or not at all.

    Projectors and readers go on; the caller holds the right to rebuild. Raises OutputExists, and StoreUnavailable, also once
    `is_stopped` returns True.
    """
    if os.path.lexists(path):
        raise OutputExists(path)
    part = part_of(path)
    with store_errors():
        _remove(part)
        try:
            copy_to(file, part, is_stopped)
            sync(part)
            publish(part, path)
        finally:
            _remove(part)
        return os.path.getsize(path)


def part_of(path: str) -> str:
    """Where a copy grows until it is complete."""
    return f"{path}.part"


def _remove(part: str) -> None:
    """Remove an unfinished copy and its side files.

    A process that was killed leaves them.
    """
    for ending in ("", *SIDE_FILES):
        Path(f"{part}{ending}").unlink(missing_ok=True)
