"""What a store can do because its database is one file."""

import os
import shutil
from collections.abc import Callable

import pysqlite3

from projector.store.errors import StoreUnavailable
from projector.store.sqlite.connection import SqliteFile, store_errors
from projector.store.sqlite.copy import copy, part_of
from projector.store.sqlite.vacuum import rewrite

SAFE_VERSION = (3, 51, 3)  # sqlite.org/wal.html#walresetbug


class SqliteFileStore(SqliteFile):
    """A database file, its WAL, and the folder of staged rows."""

    @property
    def staging_folder(self) -> str:
        """Where the processes of a rebuild put the rows that they hand over."""
        return f"{self.path}.replay"

    def maintain(self) -> None:
        """Give back disk space that is not needed now; for idle moments."""
        self.truncate_wal()

    @property
    def location(self) -> str:
        """Where the tables are, for people."""
        return self.path

    def warnings(self) -> list[str]:
        """What a person should know of this database software."""
        if pysqlite3.sqlite_version_info >= SAFE_VERSION:
            return []
        return [f"SQLite {pysqlite3.sqlite_version} can corrupt a WAL under two writers; 3.51.3 and later cannot"]

    @property
    def wal_bytes(self) -> int:
        """The size of the write-ahead log."""
        try:
            return os.path.getsize(f"{self.path}-wal")
        except FileNotFoundError:
            return 0

    def copy(self, path: str, is_stopped: Callable[[], bool]) -> int:
        """Copy the tables to a new file; its size in bytes.

        The file appears when it is complete, or not at all.

        Projectors and readers go on; the caller holds the right to rebuild. Raises OutputExists, and StoreUnavailable, also once
        `is_stopped` returns True: the thread that copies calls it often.
        """
        return copy(self, path, is_stopped)

    def copied_bytes(self, path: str) -> tuple[int, int]:
        """How far a copy to a path is: bytes written, bytes in all.

        The second is an estimate.
        """
        written = _size_of(part_of(path))
        return written, max(_size_of(self.path), written)

    def vacuum(self) -> None:
        """Rewrite the file without what was deleted; projectors wait.

        The caller holds the right to rebuild. Raises StoreUnavailable, also while another process reads so long that the old
        pages stay in the WAL.
        """
        os.makedirs(self.staging_folder, exist_ok=True)
        try:
            rewrite(self, os.path.join(self.staging_folder, "rewritten.db"))
        finally:
            shutil.rmtree(self.staging_folder, ignore_errors=True)
        with store_errors():
            [busy, *_] = self.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StoreUnavailable("another process reads the tables: the WAL still holds the old pages; try again")


def _size_of(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0
