"""The tables in one SQLite file."""

from projector.store.sqlite.adopt import adopt
from projector.store.sqlite.staging import stage_rows
from projector.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore", "adopt", "stage_rows"]
