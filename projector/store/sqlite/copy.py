"""The tables as one file of their own: a copy of them while everything runs, and such a copy put in their place.

A copy is of one moment, and has nothing of what was deleted. What it replaces has no rows, or it replaces nothing.
"""

import contextlib
import os
import shutil
from pathlib import Path
from urllib.parse import quote

import pysqlite3

from projector.rebuild.point_in_time import OutputExists, put
from projector.store.sqlite.connection import store_errors
from projector.store.sqlite.schema import LIVE, TABLES
from projector.store.sqlite.store import SqliteStore
from projector.store.sqlite.table_set import NO_CHECKPOINT, Checkpoint, TableSet
from streams import failpoint, sync
from streams.errors import PenstockError

FILLED = (*TABLES, "api_keys", "tenant_limits", "deleted_tenants")
CACHE_MIB = 8


class NoTables(PenstockError):
    """A file is no database of tables."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} is no copy of tables: {reason}")


class TablesThere(PenstockError):
    """There are tables with rows, and not those of the copy."""

    def __init__(self, path: str, table: str) -> None:
        super().__init__(f"{path} has rows in {table}, and they are not those of the copy; nothing is written over")


def copy(store: SqliteStore, path: str) -> int:
    """Copy the tables to a file that is not there yet; its bytes. It is there when it is whole, or not at all. Projectors and
    readers go on; whoever calls has the right to rebuild. Raises OutputExists, StoreUnavailable."""
    if os.path.lexists(path):
        raise OutputExists(path)
    part = part_of(path)
    with store_errors():
        Path(part).unlink(missing_ok=True)
        try:
            store.copy_to(part)
            sync(part)
            put(part, path)
        finally:
            Path(part).unlink(missing_ok=True)
        return os.path.getsize(path)


def part_of(path: str) -> str:
    """Where a copy grows until it is whole."""
    return f"{path}.part"


def adopt(path: str, tables_path: str) -> bool:
    """Put a copy where the tables are, and leave it where it is; False when they are that copy, or have gone on from it.

    Raises TablesThere for other tables that have rows, NoTables, OutputExists when another makes tables meanwhile,
    StoreUnavailable.
    """
    tables_id, checkpoints = _read(path)
    with store_errors():
        if os.path.lexists(tables_path):
            with SqliteStore(tables_path, cache_mib=CACHE_MIB) as store:
                filled = _first_filled(store)
                if filled and not _has_gone_on(store, tables_id, checkpoints):
                    raise TablesThere(tables_path, filled)
            if filled:
                return False
        Path(tables_path).parent.mkdir(parents=True, exist_ok=True)
        part = part_of(tables_path)
        try:
            shutil.copyfile(path, part)
            sync(part)
            failpoint("before_tables_are_adopted")
            for old in (tables_path, f"{tables_path}-wal", f"{tables_path}-shm"):  # an old WAL would hide the new rows
                Path(old).unlink(missing_ok=True)
            put(part, tables_path)
        finally:
            Path(part).unlink(missing_ok=True)
        sync(str(Path(tables_path).parent))
    return True


def _read(path: str) -> tuple[str, dict[str, Checkpoint]]:
    """What the database in a file is called, and its checkpoints. The file is not changed."""
    try:
        with contextlib.closing(pysqlite3.connect(f"file:{quote(path)}?mode=ro&immutable=1", uri=True)) as connection:
            [tables_id] = connection.execute("SELECT tables_id FROM database_identity").fetchone()
            return tables_id, TableSet(connection, LIVE).checkpoints()
    except (pysqlite3.DatabaseError, TypeError) as error:
        raise NoTables(path, str(error)) from None


def _first_filled(store: SqliteStore) -> str | None:
    """The first table that has rows."""
    for table in FILLED:
        if store.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone():
            return table
    return None


def _has_gone_on(store: SqliteStore, tables_id: str, checkpoints: dict[str, Checkpoint]) -> bool:
    """Whether the tables are those of that name and have reached its checkpoints."""
    now = store.tables().checkpoints()
    reached = [(now.get(tenant, NO_CHECKPOINT), then) for tenant, then in checkpoints.items()]
    return store.tables_id == tables_id and all(
        mine.position > then.position or (mine.position, mine.digest) == (then.position, then.digest) for mine, then in reached
    )
