"""A SQLite file: its connections and transactions.

pysqlite3 brings a SQLite that is new enough; many systems' own can corrupt a WAL when two connections write at once.
"""

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import pysqlite3
from sqlite_utils import Database
from sqlite_utils.db import Table

from projector.store.errors import StoreReplaced, StoreUnavailable
from streams.runtime import failpoint

PAGE_BYTES = 8192
WAL_PAGES = 8_000  # checkpoint at 64 MiB: a page that is written often is copied back once
FEW_WAL_PAGES = 500  # at 4 MiB: to sync 64 takes a disk 40 ms, for which a server's log on the same disk waits, and its clients
BUSY_SECONDS = 10.0
BUSY_PAUSE_SECONDS = 0.002
READ_SECONDS = 5.0


class _Connection(pysqlite3.Connection):  # type: ignore[misc]
    """A connection that may be referred to weakly."""


class SqliteFile:
    """One database file. One thread writes.

    Any thread reads, over a connection of its own.
    """

    def __init__(self, path: str, *, cache_mib: int = 256, busy_seconds: float = BUSY_SECONDS) -> None:
        self.path = path
        self._cache_mib = cache_mib
        self._busy_seconds = busy_seconds  # how long to wait for another that writes
        self._connection: Any = None
        self._readers = threading.local()
        self._opened: weakref.WeakSet[_Connection] = weakref.WeakSet()  # a thread's ends with the thread
        self._file: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        for connection in list(self._opened):
            connection.close()

    def reopen(self) -> None:
        """Write from now on to the file that stands at the path now.

        Raises StoreReplaced without one.
        """
        if self._file_now() is None:
            raise StoreReplaced
        self._open()

    def _open(self) -> None:
        """Open the file, made if it is missing. Raises StoreUnavailable.

        The file that was open stays open then.
        """
        before = self._connection, self._file
        with store_errors():
            self._connection = self.connect(f"file:{quote(self.path)}", self._cache_mib)
            try:
                self._prepare()
            except BaseException:
                self.close_connection(self._connection)
                self._connection, self._file = before
                raise
        if before[0] is not None:
            self.close_connection(before[0])

    def close_connection(self, connection: Any) -> None:
        """Close a connection that `connect` opened."""
        self._opened.discard(connection)
        connection.close()

    def connect(self, uri: str, cache_mib: int) -> Any:
        """Open a connection; it is closed with the file, if not before."""
        connection = self.connect_alone(uri, cache_mib)
        self._opened.add(connection)
        return connection

    def connect_alone(self, uri: str, cache_mib: int) -> Any:
        """Open a connection that stays open when the file is closed.

        For a thread that may outlive the file: the process crashes when a connection is closed while another thread uses it.
        """
        connection = pysqlite3.connect(
            uri,
            uri=True,
            timeout=self._busy_seconds,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
            factory=_Connection,
        )
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # first: the cache of a new file is counted in pages of this size
        connection.execute(f"PRAGMA cache_size = {-cache_mib * 1024}")
        return connection

    def _prepare(self) -> None:
        execute = self._connection.execute
        self._insist("PRAGMA journal_mode = WAL")  # for which SQLite does not wait, when several open a new file
        self._file = self._file_now()
        execute("PRAGMA synchronous = NORMAL")
        self.checkpoint_at(WAL_PAGES)
        execute(f"PRAGMA journal_size_limit = {PAGE_BYTES * WAL_PAGES}")
        execute("PRAGMA legacy_alter_table = ON")

    def check_identity(self) -> None:
        """Check that other processes would open this file, too.

        Raises StoreReplaced.
        """
        if self._file_now() != self._file:
            raise StoreReplaced

    def _file_now(self) -> tuple[int, int] | None:
        """Which file stands at the path: device and inode, None without one."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    # -- writing -----------------------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One write transaction, whole or not at all. Raises StoreUnavailable."""
        with store_errors():
            self.check_identity()
            self._begin()
            try:
                yield
                failpoint("before_commit")
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _begin(self) -> None:
        """BEGIN IMMEDIATE, tried every 2 ms.

        SQLite's own waiting sleeps up to 100 ms and would miss the short pauses of a rebuild.
        """
        with self._no_waiting():
            self._insist("BEGIN IMMEDIATE")

    def _insist(self, statement: str) -> None:
        """Execute a statement, again while the database is locked.

        Raises OperationalError when that lasts longer than `busy_seconds`.
        """
        deadline = time.monotonic() + self._busy_seconds
        while True:
            try:
                self._connection.execute(statement)
                return
            except pysqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(BUSY_PAUSE_SECONDS)

    @contextmanager
    def _no_waiting(self) -> Iterator[None]:
        """Without SQLite's own waiting for locks."""
        self._connection.execute("PRAGMA busy_timeout = 0")
        try:
            yield
        finally:
            self._connection.execute(f"PRAGMA busy_timeout = {int(self._busy_seconds * 1000)}")

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """Execute a statement within the caller's transaction; its cursor."""
        return self._connection.execute(statement, values)

    def table(self, name: str) -> Table:
        """A table, to write to within the caller's transaction what is not on a hot path."""
        return Database(self._connection).table(name)

    def restore_from(self, source: Any, *, pages: int, progress: Callable[..., None]) -> None:
        """Copy another database over this one, `pages` at a time.

        `progress` is called before each step.
        """
        source.backup(self._connection, pages=pages, progress=progress, sleep=BUSY_PAUSE_SECONDS)

    def checkpoint_at(self, pages: int) -> None:
        """Set the length of the WAL at which a commit checkpoints it."""
        self._connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")

    def truncate_wal(self) -> None:
        """Give the WAL's space back, unless a process reads from it."""
        with store_errors(), self._no_waiting():
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # -- reading -----------------------------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[Any]:
        """A read-only connection of this thread, in one snapshot.

        A read that takes over 5 s is ended.
        """
        with store_errors():
            connection = self._reader()
            deadline = time.monotonic() + READ_SECONDS
            connection.set_progress_handler(lambda: time.monotonic() > deadline, 100_000)
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    def _reader(self) -> Any:
        """This thread's read-only connection.

        A new one when another file was put in the place of the old.
        """
        identity = self._file_now()
        if identity is None:
            raise StoreReplaced
        if getattr(self._readers, "identity", None) != identity:
            connection = self.connect(read_only(self.path), 16)
            if hasattr(self._readers, "connection"):
                self.close_connection(self._readers.connection)
            self._readers.connection = connection
            self._readers.identity = identity
        return self._readers.connection


def read_only(path: str) -> str:
    """The address at which SQLite opens a file only to read it."""
    return f"file:{quote(path)}?mode=ro"


@contextmanager
def store_errors() -> Iterator[None]:
    """SQLite's errors of operation (locked, disk full, I/O) as ours.

    Errors of a row pass.
    """
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(str(error)) from error
    except pysqlite3.DatabaseError as error:
        if isinstance(error, pysqlite3.IntegrityError | pysqlite3.DataError | pysqlite3.ProgrammingError):
            raise
        raise StoreUnavailable(str(error)) from error
