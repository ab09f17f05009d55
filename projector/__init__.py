"""The tables: what the log says, as rows. Reads the log through streams.

Knows nothing of HTTP.
"""

from projector.projection import outcome_of, row_of
from projector.status import TenantStatus, status
from projector.store import (
    ApiKey,
    FileStore,
    Filters,
    PageKey,
    RebuildRunning,
    Store,
    StoreReplaced,
    StoreUnavailable,
    TenantLimits,
    open_store,
)

__all__ = [
    "ApiKey",
    "FileStore",
    "Filters",
    "PageKey",
    "RebuildRunning",
    "Store",
    "StoreReplaced",
    "StoreUnavailable",
    "TenantLimits",
    "TenantStatus",
    "open_store",
    "outcome_of",
    "row_of",
    "status",
]
