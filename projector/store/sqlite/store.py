"""The tables in one SQLite file: batches into them, and the sets of tables that a rebuild fills and swaps."""

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from sqlite_utils import Database

from projector.projection.project import PROJECTION_VERSION, Batch
from projector.store.errors import OtherProjection, RebuildRunning, StoreUnavailable
from projector.store.sqlite.connection import FEW_WAL_PAGES, WAL_PAGES, SqliteFile, store_errors
from projector.store.sqlite.schema import (
    DEFAULT_GAP_US,
    DROPPED,
    LIVE,
    PREVIOUS,
    SHADOW,
    TABLES,
    create_read_indexes,
    create_set,
    drop_set,
    migrations,
    rename_set,
    session_gap_of,
)
from projector.store.sqlite.staging import Chunk
from projector.store.sqlite.table_set import TableSet
from streams import control

MANY_RECORDS = 1_000  # of a transaction: there is a backlog, which is written faster with a long WAL
SORT_LIMIT_RECORDS = 1_000_000  # SQLite here sorts in memory, 70 bytes a row of each index


class SqliteStore(SqliteFile):
    """The tables of one database file. `session_gap_us` is for sets that are made here: those that are there keep theirs."""

    tables_id = ""

    def __init__(self, path: str, *, session_gap_us: int = DEFAULT_GAP_US, **options: Any) -> None:
        super().__init__(path, **options)
        self.new_set_session_gap_us = session_gap_us

    def _prepare(self) -> None:
        super()._prepare()
        if migrations.pending(Database(self._connection)):  # or a command would wait for whoever writes, only to read
            with self.transaction():
                database = Database(self._connection)
                is_new = not database["table_sets"].exists()
                migrations.apply(database)
                if is_new:
                    self.execute("UPDATE table_sets SET session_gap_us = ?", (self.new_set_session_gap_us,))
        [self.tables_id] = self.execute("SELECT tables_id FROM database_identity").fetchone()

    def apply(self, batches: Sequence[Batch]) -> list[bool]:
        """Write batches in one transaction; which began behind their tenant's checkpoint and so were written."""
        is_level = sum(batch.through - batch.after for batch in batches) < MANY_RECORDS
        self.checkpoint_at(FEW_WAL_PAGES if is_level else WAL_PAGES)
        with self._overwriting(batches), self.transaction():
            self.check_version(LIVE)
            live = self.tables(LIVE)
            written = [live.apply(batch) for batch in batches]
            for batch, moved in zip(batches, written, strict=True):
                if moved and batch.erases and self.has_set(PREVIOUS):
                    for placed in batch.control_records:
                        if isinstance(placed.control_record, control.Erase):
                            self.tables(PREVIOUS).erase(batch.tenant, placed.control_record.positions)
            return written

    @contextmanager
    def _overwriting(self, batches: Sequence[Batch]) -> Iterator[None]:
        """What is deleted meanwhile is overwritten in the file, if somebody is forgotten. Only VACUUM reaches what pages that
        were split still hold."""
        wanted = any(batch.erases for batch in batches)
        if wanted:
            self.execute("PRAGMA secure_delete = ON")
        try:
            yield
        finally:
            if wanted:
                self.execute("PRAGMA secure_delete = OFF")

    def write(self, tables: TableSet, chunk: Chunk) -> None:
        """Write a chunk to tables that nobody else writes to, in one transaction, and remove its file."""
        with self._attached(chunk.path):
            with self._overwriting(chunk.batches), self.transaction():
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

    def tables(self, suffix: str = LIVE) -> TableSet:
        """One set of tables, over the connection that writes."""
        return TableSet(self._connection, suffix)

    @staticmethod
    def tables_over(connection: Any) -> TableSet:
        """The live tables, over a connection that reads."""
        return TableSet(connection, LIVE)

    @property
    def replay_folder(self) -> str:
        """Where a rebuild keeps what its processes hand over."""
        return f"{self.path}.replay"

    def has_set(self, suffix: str) -> bool:
        """Whether a set is there."""
        return bool(self._connection.execute("SELECT 1 FROM table_sets WHERE suffix = ?", (suffix,)).fetchone())

    @contextmanager
    def snapshot(self) -> Iterator[TableSet]:
        """The live tables as they are now, for as long as it takes; writers go on, the WAL grows meanwhile."""
        with store_errors():
            connection = self._connect(f"file:{quote(self.path)}?mode=ro", 64)
            try:
                connection.execute("BEGIN")
                yield TableSet(connection)
            finally:
                self._forget(connection)

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

    def session_gap_us(self, suffix: str = LIVE) -> int:
        """The longest gap within a derived session of a set."""
        return session_gap_of(self._connection, suffix)

    def create_shadow(self, *, records: int = 0, session_gap_us: int | None = None) -> None:
        """An empty shadow set; what an interrupted rebuild left is removed first. Its derived sessions will have that gap, or the
        one of this store. For so many records that to sort them would take much memory, it has all indexes from the start."""
        self.drop_leftovers()
        with self.transaction():
            drop_set(self._connection, SHADOW)
            create_set(self._connection, SHADOW, self.new_set_session_gap_us if session_gap_us is None else session_gap_us)
            if records > SORT_LIMIT_RECORDS:
                create_read_indexes(self._connection, SHADOW)

    def index_shadow(self) -> None:
        """The indexes that serve reads, for the shadow set, if it has them not yet."""
        with self.transaction():
            create_read_indexes(self._connection, SHADOW)

    def promote(self, suffix: str) -> None:
        """Make a set the live one, within the caller's transaction; the live one becomes the previous."""
        if suffix != PREVIOUS and self.has_set(PREVIOUS):
            rename_set(self._connection, PREVIOUS, DROPPED)
        rename_set(self._connection, suffix, "__next")
        rename_set(self._connection, LIVE, PREVIOUS)
        rename_set(self._connection, "__next", LIVE)
        self._erase_from_previous()

    def _erase_from_previous(self) -> None:
        """Erase from the previous set what it has of those whom the live one has forgotten; within the caller's transaction."""
        if not self.has_set(PREVIOUS):
            return
        held = " OR ".join(
            f"EXISTS (SELECT 1 FROM {table}{PREVIOUS} AS held "
            "WHERE held.tenant_id = tombstones.tenant_id AND held.position = tombstones.position)"
            for table in ("events", "quarantine")
        )
        found: dict[str, list[int]] = {}
        for tenant, position in self.execute(f"SELECT tenant_id, position FROM tombstones WHERE reason = 'erased' AND ({held})"):
            found.setdefault(tenant, []).append(position)
        for tenant, positions in found.items():
            self.tables(PREVIOUS).erase(tenant, positions)

    def vacuum(self) -> None:
        """Write the file anew without what was deleted, and give the WAL's space back, for whoever has the right to rebuild;
        projectors wait. Raises StoreUnavailable, also while somebody reads so long that the old pages stay in the WAL."""
        os.makedirs(self.replay_folder, exist_ok=True)
        try:
            self.write_anew(os.path.join(self.replay_folder, "anew.db"))
        finally:
            shutil.rmtree(self.replay_folder, ignore_errors=True)
        with store_errors():
            [busy, *_] = self.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StoreUnavailable("somebody reads the tables: the WAL still holds what they were; try again")

    def keep_shadow_alone(self) -> None:
        """Make the shadow set the only one, with no WAL beside the file: for a database that is handed to somebody."""
        with self.transaction():
            drop_set(self._connection, LIVE)
            rename_set(self._connection, SHADOW, LIVE)
        with store_errors():
            self._connection.execute("PRAGMA journal_mode = DELETE")

    def replace_tenant(self, tenant: str) -> None:
        """Put a tenant's rows of the shadow set in the place of its live ones, within the caller's transaction."""
        for table in TABLES:
            columns = ", ".join(
                name for _, name, _, _, _, _, hidden in self._connection.execute(f"PRAGMA table_xinfo({table})") if not hidden
            )
            self._connection.execute(f"DELETE FROM {table} WHERE tenant_id = ?", (tenant,))
            self._connection.execute(
                f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {table}{SHADOW} WHERE tenant_id = ?", (tenant,)
            )
        self._erase_from_previous()

    def drop_leftovers(self) -> None:
        """Remove sets that nobody can reach any more, and the files of a rebuild that was killed."""
        shutil.rmtree(self.replay_folder, ignore_errors=True)
        for suffix in (SHADOW, DROPPED):
            if self.has_set(suffix):
                with self.transaction():
                    drop_set(self._connection, suffix)
