"""The tables: what the log says, as rows. Reads the log through streams; knows nothing of HTTP."""

from projector import credentials, reads
from projector.credentials import ApiKey
from projector.reads import Filters, Place
from projector.sqlite import SqliteStore
from projector.store import StoreReplaced, StoreUnavailable, open_store

__all__ = ["ApiKey", "Filters", "Place", "SqliteStore", "StoreReplaced", "StoreUnavailable", "credentials", "open_store", "reads"]
