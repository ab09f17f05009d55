"""A copy of the tables put where the tables are, if they are empty."""

import contextlib
import os
import shutil
from pathlib import Path
from urllib.parse import quote

import pysqlite3

from projector.projection import NO_CHECKPOINT, Checkpoint
from projector.store.errors import NotACopy, TablesNotEmpty
from projector.store.files import publish
from projector.store.sqlite.connection import store_errors
from projector.store.sqlite.copy import part_of
from projector.store.sqlite.schema import TABLES
from projector.store.sqlite.store import SqliteStore
from projector.store.sqlite.table_reader import TableReader
from streams.runtime import failpoint, sync

FILLED = (*TABLES, "api_keys", "tenant_limits", "deleted_tenants")
CACHE_MIB = 8


def adopt(path: str, tables_path: str) -> bool:
    """Put a copy where the tables are, and leave the copy.

    Returns False when the tables are that copy, or continue it.

    Raises TablesNotEmpty for other tables that have rows, NotACopy, OutputExists when another process makes tables meanwhile,
    StoreUnavailable.
    """
    tables_id, checkpoints = _read(path)
    with store_errors():
        if os.path.lexists(tables_path):
            with SqliteStore(tables_path, cache_mib=CACHE_MIB) as store:
                filled = _first_filled(store)
                if filled and not _has_gone_on(store, tables_id, checkpoints):
                    raise TablesNotEmpty(tables_path, filled)
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
            publish(part, tables_path)
        finally:
            Path(part).unlink(missing_ok=True)
        sync(str(Path(tables_path).parent))
    return True


def _read(path: str) -> tuple[str, dict[str, Checkpoint]]:
    """The name of the database in a file, and its checkpoints.

    The file is not changed.
    """
    try:
        with contextlib.closing(pysqlite3.connect(f"file:{quote(path)}?mode=ro&immutable=1", uri=True)) as connection:
            [tables_id] = connection.execute("SELECT tables_id FROM database_identity").fetchone()
            return tables_id, TableReader(connection).checkpoints()
    except (pysqlite3.DatabaseError, TypeError) as error:
        raise NotACopy(path, str(error)) from None


def _first_filled(store: SqliteStore) -> str | None:
    """The first table that has rows."""
    for table in FILLED:
        if store.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone():
            return table
    return None


def _has_gone_on(store: SqliteStore, tables_id: str, checkpoints: dict[str, Checkpoint]) -> bool:
    """Whether the tables have that name and have reached these checkpoints."""
    now = store.checkpoints()
    pairs = [(now.get(tenant, NO_CHECKPOINT), copied) for tenant, copied in checkpoints.items()]
    return store.tables_id == tables_id and all(
        own.position > copied.position or (own.position, own.digest) == (copied.position, copied.digest) for own, copied in pairs
    )
