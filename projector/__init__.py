"""The tables: what the log says, as rows. Reads the log through streams; knows nothing of HTTP."""

from projector import reads
from projector.reads import Filters, Place
from projector.sqlite import SqliteStore
from projector.store import StoreUnavailable, open_store

__all__ = ["Filters", "Place", "SqliteStore", "StoreUnavailable", "open_store", "reads"]
