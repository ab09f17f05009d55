"""The tables in one SQLite file: connections, transactions, and the sets of tables in it.

pysqlite3 brings a SQLite that is new enough; many systems' own can corrupt a WAL when two connections write at once.
"""

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pysqlite3
from sqlite_utils import Database

from projector.chunk import Chunk
from projector.projection import PROJECTION_VERSION, Batch
from projector.schema import DROPPED, LIVE, PREVIOUS, SHADOW, create_read_indexes, create_set, drop_set, migrations, rename_set
from projector.store import OtherProjection, RebuildRunning, StoreReplaced, StoreUnavailable
from projector.tables import Tables
from streams import fault_point

PAGE_BYTES = 8192
WAL_PAGES = 8_000  # checkpoint at 64 MiB: a page that is written often is copied back once
BUSY_SECONDS = 10.0
BUSY_PAUSE_SECONDS = 0.002
READ_SECONDS = 5.0
SAFE_VERSION = (3, 51, 3)  # sqlite.org/wal.html#walresetbug


class SqliteStore:
    """The tables of one database file. One thread writes; any thread reads, over a connection of its own."""

    def __init__(self, path: str, *, cache_mib: int = 256, busy_seconds: float = BUSY_SECONDS) -> None:
        self.path = path
        self._cache_mib = cache_mib
        self._busy_seconds = busy_seconds  # how long to wait for another that writes
        self._connection: Any = None
        self._readers = threading.local()
        self._opened: list[Any] = []
        self._file: tuple[int, int] | None = None
        self.tables_id = ""

    def __enter__(self) -> "SqliteStore":
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        self.reopen()
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._opened:
            connection.close()

    def reopen(self) -> None:
        """Write from now on to the file that is there now. Raises StoreUnavailable, and everything is as it was."""
        before = self._connection, self._file
        with store_errors():
            self._connection = self._connect(f"file:{quote(self.path)}", self._cache_mib)
            try:
                self._prepare()
            except BaseException:
                self._forget(self._connection)
                self._connection, self._file = before
                raise
        if before[0] is not None:
            self._forget(before[0])

    def _forget(self, connection: Any) -> None:
        self._opened.remove(connection)
        connection.close()

    def _connect(self, uri: str, cache_mib: int) -> Any:
        connection = pysqlite3.connect(
            uri, uri=True, timeout=self._busy_seconds, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        connection.execute(f"PRAGMA cache_size = {-cache_mib * 1024}")
        self._opened.append(connection)
        return connection

    def _prepare(self) -> None:
        execute = self._connection.execute
        execute(f"PRAGMA page_size = {PAGE_BYTES}")
        self._insist("PRAGMA journal_mode = WAL")  # for which SQLite does not wait, when several open a new file
        self._file = self._file_now()
        execute("PRAGMA synchronous = NORMAL")
        execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        execute(f"PRAGMA journal_size_limit = {PAGE_BYTES * WAL_PAGES}")
        execute("PRAGMA legacy_alter_table = ON")
        if migrations.pending(Database(self._connection)):  # or a command would wait for whoever writes, only to read
            with self.transaction():
                migrations.apply(Database(self._connection))
        [self.tables_id] = execute("SELECT tables_id FROM database_identity").fetchone()

    def check_file(self) -> None:
        """Raises StoreReplaced when the file that is open is not the one that others would open: what is written to it is
        read by nobody."""
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
            self.check_file()
            self._begin()
            try:
                yield
                fault_point("before_commit")
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _begin(self) -> None:
        """BEGIN IMMEDIATE, asked for every 2 ms: SQLite's own waiting sleeps up to 100 ms and would miss the short
        pauses of a rebuild."""
        with self._no_waiting():
            self._insist("BEGIN IMMEDIATE")

    def _insist(self, statement: str) -> None:
        """Execute a statement, again and again while the database is locked, up to a bound."""
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

    def apply(self, batches: Sequence[Batch]) -> list[bool]:
        """Write batches in one transaction; which began behind their tenant's checkpoint and so were written."""
        with self.transaction():
            self.check_version(LIVE)
            live = self.tables(LIVE)
            return [live.apply(batch) for batch in batches]

    def write(self, tables: Tables, chunk: Chunk) -> None:
        """Write a chunk to tables that nobody else writes to, in one transaction, and remove its file."""
        with self._attached(chunk.path):
            with self.transaction():
                for batch, stored in chunk.parts():
                    assert tables.apply(batch, stored), "nobody else writes to this set"
        if chunk.path is not None:
            os.unlink(chunk.path)

    @contextmanager
    def _attached(self, path: str | None) -> Iterator[None]:
        """With a chunk's file attached as `chunk`, if it has one."""
        if path is None:
            yield
            return
        with store_errors():
            self._connection.execute(
                "CREATE TEMP TABLE IF NOT EXISTS known_sessions (position_in_chunk INTEGER PRIMARY KEY, first_position INTEGER)"
            )
            self._connection.execute("ATTACH ? AS chunk", (f"file:{quote(path)}?mode=ro&immutable=1",))
            try:
                yield
            finally:
                self._connection.execute("DETACH chunk")

    def check_version(self, suffix: str) -> None:
        """Raises OtherProjection when a set was made by another version of the projection."""
        row = self._connection.execute("SELECT projection_version FROM table_sets WHERE suffix = ?", (suffix,)).fetchone()
        if row and row[0] != PROJECTION_VERSION:
            raise OtherProjection(row[0], PROJECTION_VERSION)

    def tables(self, suffix: str = LIVE) -> Tables:
        """One set of tables, over the connection that writes."""
        return Tables(self._connection, suffix)

    @staticmethod
    def tables_over(connection: Any) -> Tables:
        """The live tables, over a connection that reads."""
        return Tables(connection, LIVE)

    @property
    def replay_folder(self) -> str:
        """Where a rebuild keeps what its processes hand over."""
        return f"{self.path}.replay"

    def has_set(self, suffix: str) -> bool:
        """Whether a set is there."""
        return bool(self._connection.execute("SELECT 1 FROM table_sets WHERE suffix = ?", (suffix,)).fetchone())

    def truncate_wal(self) -> None:
        """Give the WAL's space back, if nobody reads from it; for idle moments."""
        with store_errors(), self._no_waiting():
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # -- rebuilding --------------------------------------------------------------------------------------------------

    @contextmanager
    def rebuilding(self) -> Iterator[None]:
        """The right to fill and swap sets; the system takes it back when the process ends. Raises RebuildRunning."""
        with open(f"{self.path}.rebuild", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RebuildRunning from None
            yield

    def create_shadow(self) -> None:
        """An empty shadow set; what an interrupted rebuild left is removed first."""
        self.drop_leftovers()
        with self.transaction():
            drop_set(self._connection, SHADOW)
            create_set(self._connection, SHADOW)

    def index_shadow(self) -> None:
        """The indexes that serve reads, for the shadow set."""
        with self.transaction():
            create_read_indexes(self._connection, SHADOW)

    def promote(self, suffix: str) -> None:
        """Make a set the live one, within the caller's transaction; the live one becomes the previous."""
        if suffix != PREVIOUS and self.has_set(PREVIOUS):
            rename_set(self._connection, PREVIOUS, DROPPED)
        rename_set(self._connection, suffix, "__next")
        rename_set(self._connection, LIVE, PREVIOUS)
        rename_set(self._connection, "__next", LIVE)

    def replace_tenant(self, tenant: str) -> None:
        """Put a tenant's rows of the shadow set in the place of its live ones, within the caller's transaction."""
        for table in ("events", "event_sessions", "quarantine", "checkpoints"):
            columns = ", ".join(
                name for _, name, _, _, _, _, hidden in self._connection.execute(f"PRAGMA table_xinfo({table})") if not hidden
            )
            self._connection.execute(f"DELETE FROM {table} WHERE tenant_id = ?", (tenant,))
            self._connection.execute(
                f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {table}{SHADOW} WHERE tenant_id = ?", (tenant,)
            )

    def drop_leftovers(self) -> None:
        """Remove sets that nobody can reach any more, and the files of a rebuild that was killed."""
        shutil.rmtree(self.replay_folder, ignore_errors=True)
        for suffix in (SHADOW, DROPPED):
            if self.has_set(suffix):
                with self.transaction():
                    drop_set(self._connection, suffix)

    # -- reading -----------------------------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[Any]:
        """A read-only connection of this thread, in one snapshot. A read that takes over 5 s is ended."""
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
        """This thread's read-only connection; a new one when another file was put in the place of the old."""
        identity = self._file_now()
        if identity is None:
            raise StoreReplaced
        if getattr(self._readers, "identity", None) != identity:
            connection = self._connect(f"file:{quote(self.path)}?mode=ro", 16)
            if hasattr(self._readers, "connection"):
                self._forget(self._readers.connection)
            self._readers.connection = connection
            self._readers.identity = identity
        return self._readers.connection

    @contextmanager
    def snapshot(self) -> Iterator[Tables]:
        """The live tables as they are now, for as long as it takes; writers go on, the WAL grows meanwhile."""
        with store_errors():
            connection = self._connect(f"file:{quote(self.path)}?mode=ro", 64)
            try:
                connection.execute("BEGIN")
                yield Tables(connection)
            finally:
                self._forget(connection)

    @property
    def version_warning(self) -> str | None:
        """What to say when this SQLite has the WAL reset bug."""
        if pysqlite3.sqlite_version_info >= SAFE_VERSION:
            return None
        return f"SQLite {pysqlite3.sqlite_version} can corrupt a WAL under two writers; 3.51.3 and later cannot"

    @property
    def free_bytes(self) -> int:
        """Free disk space where the tables are."""
        status = os.statvfs(Path(self.path).parent)
        return status.f_bavail * status.f_frsize


@contextmanager
def store_errors() -> Iterator[None]:
    """SQLite's errors of operation (locked, disk full, I/O) as ours; errors of a row pass."""
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(str(error)) from error
    except pysqlite3.DatabaseError as error:
        if isinstance(error, pysqlite3.IntegrityError | pysqlite3.DataError | pysqlite3.ProgrammingError):
            raise
        raise StoreUnavailable(str(error)) from error
