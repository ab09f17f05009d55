"""The tables in one SQLite file, as a Store."""

import fcntl
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from sqlite_utils import Database

from projector.projection import PROJECTION_VERSION, Batch, Checkpoint
from projector.store.errors import OtherProjection, RebuildRunning
from projector.store.sqlite.api_keys import SqliteApiKeys
from projector.store.sqlite.connection import FEW_WAL_PAGES, WAL_PAGES, read_only, store_errors
from projector.store.sqlite.file_store import SqliteFileStore
from projector.store.sqlite.migrations import migrations
from projector.store.sqlite.promotion import SqliteSwap
from projector.store.sqlite.quarantine import SqliteQuarantine
from projector.store.sqlite.queries import SqliteQueries
from projector.store.sqlite.schema import (
    DEFAULT_GAP_US,
    DROPPED,
    LIVE,
    SHADOW,
    SUFFIXES,
    create_read_indexes,
    create_set,
    drop_set,
    has_set,
    rename_set,
    session_gap_of,
)
from projector.store.sqlite.table_reader import TableReader
from projector.store.sqlite.table_set import TableSet
from projector.store.sqlite.tenant_deletion import create_tenant, delete_tenant
from projector.store.sqlite.tenant_limits import SqliteTenantLimits
from projector.store.structs import Chunk, SetName, TenantState
from streams import control

MANY_RECORDS = 1_000  # of a transaction: there is a backlog, which is written faster with a long WAL
SORT_LIMIT_RECORDS = 1_000_000  # SQLite here sorts in memory, 70 bytes a row of each index
SNAPSHOT_CACHE_MIB = 64


class SqliteStore(SqliteFileStore):
    """The tables of one database file.

    `session_gap_us` is for sets that are made here; existing sets keep theirs.
    """

    tables_id = ""

    def __init__(self, path: str, *, session_gap_us: int = DEFAULT_GAP_US, **options: Any) -> None:
        super().__init__(path, **options)
        self.new_set_session_gap_us = session_gap_us
        self.queries = SqliteQueries(self)
        self.quarantine = SqliteQuarantine(self)
        self.api_keys = SqliteApiKeys(self)
        self.tenant_limits = SqliteTenantLimits(self)

    def _prepare(self) -> None:
        super()._prepare()
        if migrations.pending(Database(self._connection)):  # or a command that only reads would wait for a writer
            with self.transaction():
                database = Database(self._connection)
                is_new = not database["table_sets"].exists()
                migrations.apply(database)
                if is_new:
                    self.execute("UPDATE table_sets SET session_gap_us = ?", (self.new_set_session_gap_us,))
        [self.tables_id] = self.execute("SELECT tables_id FROM database_identity").fetchone()

    # -- apply ---------------------------------------------------------------------------------------------------------

    def apply(self, batches: Sequence[Batch]) -> list[bool]:
        """Write batches to the live tables in one transaction.

        Returns for each batch whether it began at its tenant's checkpoint and so was written.
        """
        is_short = sum(batch.through - batch.after for batch in batches) < MANY_RECORDS
        self.checkpoint_at(FEW_WAL_PAGES if is_short else WAL_PAGES)
        with self._overwriting(batches), self.transaction():
            self.check_version()
            live = self.tables()
            written = [live.apply(batch) for batch in batches]
            for batch, moved in zip(batches, written, strict=True):
                if moved and batch.erases and self.has_set(SetName.PREVIOUS):
                    for placed in batch.control_records:
                        if isinstance(placed.control_record, control.Erase):
                            self.tables(SetName.PREVIOUS).erase(batch.tenant, placed.control_record.positions)
            return written

    @contextmanager
    def _overwriting(self, batches: Sequence[Batch]) -> Iterator[None]:
        """Overwrite what is deleted meanwhile, if a batch erases.

        Pages that were split before may still hold it until VACUUM.
        """
        erases = any(batch.erases for batch in batches)
        if erases:
            self.execute("PRAGMA secure_delete = ON")
        try:
            yield
        finally:
            if erases:
                self.execute("PRAGMA secure_delete = OFF")

    def check_version(self, name: SetName = SetName.LIVE) -> None:
        """Check that this version of the projection made a set.

        Raises OtherProjection.
        """
        statement = "SELECT projection_version FROM table_sets WHERE suffix = ?"
        row = self._connection.execute(statement, (SUFFIXES[name],)).fetchone()
        if row and row[0] != PROJECTION_VERSION:
            raise OtherProjection(row[0], PROJECTION_VERSION)

    def tables(self, name: SetName = SetName.LIVE) -> TableSet:
        """One set of tables, over the connection that writes."""
        return TableSet(self._connection, SUFFIXES[name])

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def checkpoint(self, tenant: str, name: SetName = SetName.LIVE) -> Checkpoint:
        """A tenant's checkpoint; position 0 for a tenant without rows."""
        with self.reading() as connection:
            return TableReader(connection, SUFFIXES[name]).checkpoint(tenant)

    def checkpoints(self, name: SetName = SetName.LIVE) -> dict[str, Checkpoint]:
        """The checkpoint of every tenant that has one, by tenant."""
        with self.reading() as connection:
            return TableReader(connection, SUFFIXES[name]).checkpoints()

    def states(self, tenants: Iterable[str]) -> dict[str, TenantState]:
        """How far the live tables are with each of some tenants; of one snapshot."""
        with self.reading() as connection:
            tables = TableReader(connection)
            return {tenant: tables.state(tenant) for tenant in tenants}

    def deleted_among(self, tenants: Iterable[str]) -> set[str]:
        """The tenants that were deleted and not created again."""
        with self.reading() as connection:
            tables = TableReader(connection)
            return {tenant for tenant in tenants if tables.is_deleted(tenant)}

    def check_readable(self) -> None:
        """Raises StoreUnavailable when the live tables cannot be read."""
        with self.reading() as connection:
            connection.execute("SELECT 1 FROM checkpoints LIMIT 1").fetchone()

    def config_version(self) -> int:
        """A number that every change of keys or limits changes."""
        with self.reading() as connection:
            return int(connection.execute("SELECT version FROM config_version").fetchone()[0])

    @contextmanager
    def snapshot(self) -> Iterator[TableReader]:
        """The live tables as they are now, for as long as it takes. Writers go on.

        The WAL grows meanwhile.
        """
        with store_errors():
            connection = self.connect(read_only(self.path), SNAPSHOT_CACHE_MIB)
            try:
                connection.execute("BEGIN")
                yield TableReader(connection)
            finally:
                self.close_connection(connection)

    # -- sets of tables ------------------------------------------------------------------------------------------------

    @contextmanager
    def rebuilding(self) -> Iterator[None]:
        """The right to fill and swap sets.

        The system takes it back when the process ends. Raises RebuildRunning.
        """
        with open(f"{self.path}.rebuild", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RebuildRunning from None
            yield

    def has_set(self, name: SetName) -> bool:
        """Whether a set exists."""
        return has_set(self._connection, SUFFIXES[name])

    def session_gap_us(self, name: SetName = SetName.LIVE) -> int:
        """The longest gap within a derived session of a set."""
        return session_gap_of(self._connection, SUFFIXES[name])

    def create_shadow(self, *, records: int = 0, session_gap_us: int | None = None) -> None:
        """Create an empty shadow set.

        What an interrupted rebuild left is removed first.

        Its derived sessions will have that gap, or the one of this store. For more records than can be sorted in little memory
        it gets all indexes now.
        """
        self.drop_leftovers()
        with self.transaction():
            drop_set(self._connection, SHADOW)
            create_set(self._connection, SHADOW, self.new_set_session_gap_us if session_gap_us is None else session_gap_us)
            if records > SORT_LIMIT_RECORDS:
                create_read_indexes(self._connection, SHADOW)

    def write(self, name: SetName, chunk: Chunk) -> None:
        """Write a chunk in one transaction, and remove its file.

        Only this process may write to the set.
        """
        tables = self.tables(name)
        with self._attached(chunk.path):
            with self._overwriting(chunk.batches), self.transaction():
                for batch, staged in chunk.parts():
                    assert tables.apply(batch, staged), "only this process writes to this set"
        if chunk.path is not None:
            os.unlink(chunk.path)

    @contextmanager
    def _attached(self, path: str | None) -> Iterator[None]:
        """With a chunk's file attached as `chunk`, if it has a file."""
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

    def index_shadow(self) -> None:
        """Create the shadow set's indexes for reads, if missing."""
        with self.transaction():
            create_read_indexes(self._connection, SHADOW)

    @contextmanager
    def swapping(self, name: SetName) -> Iterator[SqliteSwap]:
        """A transaction that puts a set in the place of the live one.

        No projector can move a checkpoint meanwhile.
        """
        with self.transaction():
            yield SqliteSwap(self._connection, SUFFIXES[name])

    def drop_leftovers(self) -> None:
        """Remove what interrupted rebuilds left: sets and files."""
        shutil.rmtree(self.staging_folder, ignore_errors=True)
        for suffix in (SHADOW, DROPPED):
            if has_set(self._connection, suffix):
                with self.transaction():
                    drop_set(self._connection, suffix)

    # -- deletion of tenants -------------------------------------------------------------------------------------------

    def delete_tenant(self, tenant: str) -> Counter[str]:
        """Remove a tenant from every set, with its keys and limits.

        Returns how many rows of each table were removed.

        The caller holds the right to rebuild, so no shadow set is being filled. Interrupt it at any moment and start it again.
        """
        self.drop_leftovers()
        suffixes = [SUFFIXES[name] for name in (SetName.LIVE, SetName.PREVIOUS) if self.has_set(name)]
        return delete_tenant(self, tenant, suffixes)

    def create_tenant(self, tenant: str) -> bool:
        """Let a tenant that was deleted begin again.

        Returns False when it was not deleted.
        """
        return create_tenant(self, tenant)

    def keep_shadow_alone(self) -> None:
        """Make the shadow set the only set of a file to give away.

        No WAL is left beside the file.
        """
        with self.transaction():
            drop_set(self._connection, LIVE)
            rename_set(self._connection, SHADOW, LIVE)
        with store_errors():
            self._connection.execute("PRAGMA journal_mode = DELETE")
