"""The tables: the only place with SQL.

The rest of Penstock asks a `Store`; each engine has a folder here.

Methods take and return structs. Every method may raise StoreUnavailable. What only one engine can do is a second protocol,
which a command asks for: `isinstance(store, FileStore)`.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, Self

from projector.projection import Batch, Checkpoint
from projector.store import sqlite
from projector.store.errors import (
    NotACopy,
    OtherProjection,
    OutputExists,
    RebuildRunning,
    StoreReplaced,
    StoreUnavailable,
    TablesNotEmpty,
)
from projector.store.parts import ApiKeys, FileStore, OwnLimits, Quarantine, Queries, Snapshot, Swap
from projector.store.sqlite import stage_rows
from projector.store.structs import (
    ApiKey,
    Chunk,
    Entry,
    Filters,
    Outcomes,
    PageKey,
    Selection,
    SetName,
    StagedRows,
    TableCounts,
    TenantLimits,
    TenantState,
)

LIVE, SHADOW, PREVIOUS = SetName.LIVE, SetName.SHADOW, SetName.PREVIOUS


class Store(Protocol):
    """The tables of one database. One thread writes; any thread reads."""

    tables_id: str  # the database's own name: no two databases share it, not even a database and an earlier one at its place
    new_set_session_gap_us: int  # of the sets that this process makes; existing sets keep theirs

    def __enter__(self) -> Self:
        """Open it; make the tables, if there are none."""

    def __exit__(self, *_: object) -> None:
        """Close it."""

    # -- apply ---------------------------------------------------------------------------------------------------------

    def apply(self, batches: Sequence[Batch]) -> list[bool]:
        """Write batches to the live tables in one transaction.

        Returns for each batch whether it began at its tenant's checkpoint and so was written. Raises OtherProjection,
        StoreReplaced.
        """

    def check_version(self, name: SetName = LIVE) -> None:
        """Check that this version of the projection made a set.

        Raises OtherProjection.
        """

    # -- read ----------------------------------------------------------------------------------------------------------

    @property
    def queries(self) -> Queries:
        """What the query endpoints and `status` read."""

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """The live tables as they are now, for as long as it takes; writers go on."""

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def checkpoint(self, tenant: str, name: SetName = LIVE) -> Checkpoint:
        """A tenant's checkpoint; position 0 for a tenant without rows."""

    def checkpoints(self, name: SetName = LIVE) -> dict[str, Checkpoint]:
        """The checkpoint of every tenant that has one, by tenant."""

    def states(self, tenants: Iterable[str]) -> dict[str, TenantState]:
        """How far the live tables are with each of some tenants; of one snapshot."""

    # -- sets ----------------------------------------------------------------------------------------------------------

    @property
    def staging_folder(self) -> str:
        """Where the processes of a rebuild put the rows that they hand over."""

    def rebuilding(self) -> AbstractContextManager[None]:
        """The right to fill and swap sets. It ends with the process.

        Raises RebuildRunning.
        """

    def has_set(self, name: SetName) -> bool:
        """Whether a set exists."""

    def session_gap_us(self, name: SetName = LIVE) -> int:
        """The longest gap within a derived session of a set."""

    def create_shadow(self, *, records: int = 0, session_gap_us: int | None = None) -> None:
        """Create an empty shadow set for about that many records.

        What an interrupted rebuild left is removed first.
        """

    def write(self, name: SetName, chunk: Chunk) -> None:
        """Write a chunk in one transaction, and remove its file.

        Only this process may write to the set.
        """

    def index_shadow(self) -> None:
        """Create the shadow set's indexes for reads, if missing."""

    def swapping(self, name: SetName) -> AbstractContextManager[Swap]:
        """A transaction that puts a set in the place of the live one.

        No projector can move a checkpoint meanwhile.
        """

    def drop_leftovers(self) -> None:
        """Remove what interrupted rebuilds left: sets and files."""

    # -- quarantine ----------------------------------------------------------------------------------------------------

    @property
    def quarantine(self) -> Quarantine:
        """The records that could not become rows."""

    # -- keys and limits -----------------------------------------------------------------------------------------------

    @property
    def api_keys(self) -> ApiKeys:
        """The API keys of all tenants."""

    @property
    def tenant_limits(self) -> OwnLimits:
        """The limits of those tenants that have their own."""

    def config_version(self) -> int:
        """A number that every change of keys or limits changes."""

    # -- deletion of tenants -------------------------------------------------------------------------------------------

    def delete_tenant(self, tenant: str) -> Mapping[str, int]:
        """Remove a tenant from every set, with its keys and limits.

        Returns how many rows of each table were removed. The caller holds the right to rebuild. Interrupt it at any
        moment and start it again.
        """

    def create_tenant(self, tenant: str) -> bool:
        """Let a tenant that was deleted begin again.

        Returns False when it was not deleted.
        """

    def deleted_among(self, tenants: Iterable[str]) -> set[str]:
        """The tenants that were deleted and not created again."""

    # -- health --------------------------------------------------------------------------------------------------------

    @property
    def location(self) -> str:
        """Where the tables are, for people."""

    def warnings(self) -> list[str]:
        """What a person should know of this database software."""

    def check_readable(self) -> None:
        """Raises StoreUnavailable when the live tables cannot be read."""

    def check_identity(self) -> None:
        """Check that other processes would open this database, too.

        Raises StoreReplaced.
        """

    def reopen(self) -> None:
        """Write from now on to the database that stands there now.

        Raises StoreReplaced when there is none.
        """

    def maintain(self) -> None:
        """Give back disk space that is not needed now; for idle moments."""


class ScratchStore(Store, Protocol):
    """Tables of this process alone, in a file."""

    def keep_shadow_alone(self) -> None:
        """Make the shadow set the only set of a file to give away.

        No WAL is left beside the file.
        """


def open_store(url: str, *, cache_mib: int = 256, busy_seconds: float = 10.0, session_gap_seconds: float = 1_800.0) -> Store:
    """The store that a DATABASE_URL names, to be used as a context manager.

    `busy_seconds`: how long to wait for another process that writes. `session_gap_seconds`: of the sets that it makes.
    """
    session_gap_us = round(session_gap_seconds * 1_000_000)
    return sqlite.SqliteStore(path_of(url), session_gap_us=session_gap_us, cache_mib=cache_mib, busy_seconds=busy_seconds)


def open_scratch(path: str, *, cache_mib: int, session_gap_us: int) -> ScratchStore:
    """A store in a new file; the live tables may have another engine."""
    return sqlite.SqliteStore(path, cache_mib=cache_mib, session_gap_us=session_gap_us)


def adopt(path: str, url: str) -> bool:
    """Put a copy where the tables of a DATABASE_URL are.

    Returns False when they are that copy, or continue it.

    Raises TablesNotEmpty, NotACopy, OutputExists when another process makes tables meanwhile.
    """
    return sqlite.adopt(path, path_of(url))


def path_of(url: str) -> str:
    """The path of the file that a DATABASE_URL names."""
    return url.removeprefix("sqlite:///")


__all__ = [
    "LIVE",
    "PREVIOUS",
    "SHADOW",
    "ApiKey",
    "ApiKeys",
    "Chunk",
    "Entry",
    "FileStore",
    "Filters",
    "NotACopy",
    "OtherProjection",
    "Outcomes",
    "OutputExists",
    "OwnLimits",
    "PageKey",
    "Quarantine",
    "Queries",
    "RebuildRunning",
    "ScratchStore",
    "Selection",
    "SetName",
    "Snapshot",
    "StagedRows",
    "Store",
    "StoreReplaced",
    "StoreUnavailable",
    "Swap",
    "TableCounts",
    "TablesNotEmpty",
    "TenantLimits",
    "TenantState",
    "adopt",
    "open_scratch",
    "open_store",
    "path_of",
    "stage_rows",
]
