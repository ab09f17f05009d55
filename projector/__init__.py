"""The tables: what the log says, as rows. Reads the log through streams; knows nothing of HTTP."""

from projector import access, credentials, erasure, limits, reads
from projector.credentials import ApiKey
from projector.limits import TenantLimits
from projector.reads import Filters, Place
from projector.sqlite import SqliteStore
from projector.status import TenantStatus, status
from projector.store import RebuildRunning, StoreReplaced, StoreUnavailable, open_store

__all__ = [
    "ApiKey",
    "Filters",
    "Place",
    "RebuildRunning",
    "SqliteStore",
    "StoreReplaced",
    "StoreUnavailable",
    "TenantLimits",
    "TenantStatus",
    "access",
    "credentials",
    "erasure",
    "limits",
    "open_store",
    "reads",
    "status",
]
