"""The tables: what the log says, as rows. Reads the log through streams; knows nothing of HTTP."""

from projector.status import TenantStatus, status
from projector.store.errors import RebuildRunning, StoreReplaced, StoreUnavailable
from projector.store.open import open_store
from projector.store.sqlite import api_keys, config_version, queries, tenant_deletion, tenant_limits
from projector.store.sqlite.api_keys import ApiKey
from projector.store.sqlite.queries import Filters, Place
from projector.store.sqlite.store import SqliteStore
from projector.store.sqlite.tenant_limits import TenantLimits

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
    "api_keys",
    "config_version",
    "open_store",
    "queries",
    "status",
    "tenant_deletion",
    "tenant_limits",
]
