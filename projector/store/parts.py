"""The parts of a store: protocols of a few methods each.

Methods take and return structs.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from projector.projection import Batch, Checkpoint, EventRow, KnownEvent, QuarantineRow
from projector.store.structs import ApiKey, Entry, Filters, Outcomes, PageKey, Selection, TableCounts, TenantLimits


class Queries(Protocol):
    """What the query endpoints and `status` read of the live tables.

    Each call reads one snapshot.
    """

    def events(self, tenant: str, filters: Filters, page_key: PageKey | None, limit: int) -> list[dict[str, Any]]:
        """Events after a page key, newest first by event time, then position."""

    def sessions(self, tenant: str, filters: Filters, page_key: PageKey | None, limit: int) -> list[dict[str, Any]]:
        """Sessions, newest last event first.

        With `event_type`, those that have such an event.
        """

    def session(
        self, tenant: str, filters: Filters, page_key: PageKey | None, limit: int
    ) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """One session, or None, and a page of its events."""

    def receipt(self, tenant: str, position: int) -> dict[str, Any]:
        """What the tables know of a position."""

    def known_event(self, row: EventRow) -> KnownEvent | None:
        """The event in the tables that has the identity of a row, or None."""

    def counts(self, tenants: Iterable[str]) -> TableCounts:
        """Checkpoints and counts of every tenant.

        Also says which of the given tenants were deleted.
        """

    def session_counts(self, tenants: Sequence[str] | None = None) -> dict[str, int]:
        """How many sessions there are, by tenant; of all tenants, or of some.

        Each session takes time.
        """


class Quarantine(Protocol):
    """The records in quarantine of the live tables, by tenant and position."""

    def entries(self, selection: Selection) -> Iterator[Entry]:
        """Records without their bodies."""

    def pages(self, selection: Selection) -> Iterator[list[QuarantineRow]]:
        """Records with their bodies, in pages."""

    def positions(self, selection: Selection) -> Iterator[list[int]]:
        """The positions of records, in pages."""

    def count(self, selection: Selection) -> int:
        """How many records there are."""

    def find(self, tenant: str, position: int) -> QuarantineRow | None:
        """The record at a position, or None."""

    def outcomes(self, tenant: str, positions: Sequence[int]) -> Outcomes:
        """What stands at positions now."""


class ApiKeys(Protocol):
    """The API keys of all tenants. No rebuild touches them."""

    def add(self, key: ApiKey) -> None:
        """Keep a new key."""

    def revoke(self, key_id: str) -> bool:
        """Remove a key; False when there is none of that id."""

    def note_uses(self, used_at_us: Mapping[bytes, int]) -> None:
        """Keep when keys, given by their hashes, were last used.

        A later use that is kept already stays.
        """

    def load(self) -> list[ApiKey]:
        """All keys, by tenant, oldest first."""


class OwnLimits(Protocol):
    """The limits of those tenants that have their own.

    No rebuild touches them.
    """

    def keep(self, limits: TenantLimits) -> None:
        """Keep a tenant's own limits; limits that are all None are removed."""

    def load(self) -> dict[str, TenantLimits]:
        """The own limits, by tenant."""


class Snapshot(Protocol):
    """The live tables as they were at one moment, for a comparison row by row."""

    def checkpoint(self, tenant: str) -> Checkpoint:
        """A tenant's checkpoint; position 0 for a tenant without rows."""

    def checkpoints(self) -> dict[str, Checkpoint]:
        """The checkpoint of every tenant that has one, by tenant."""

    def rows(self, table: str, tenant: str, *, begin: int = 0) -> Iterator[dict[str, Any]]:
        """A tenant's rows of one table, in order of their key.

        With `begin`, only rows of positions from there on, and the sessions that have an event there.
        """

    def row(self, table: str, tenant: str, key: int) -> dict[str, Any] | None:
        """A tenant's row of one table, by its key."""

    def count(self, table: str, tenant: str) -> int:
        """How many rows of a tenant one table has, counted."""

    def first_received(self, tenant: str, moment_us: int) -> int | None:
        """The first position received at a time or later, or None.

        It is that of a row, or of a record in quarantine.
        """


class Swap(Protocol):
    """A set that is about to become the live one, in one transaction."""

    def checkpoints(self) -> dict[str, Checkpoint]:
        """How far the set is, by tenant."""

    def live_checkpoints(self) -> dict[str, Checkpoint]:
        """How far the live set is, by tenant."""

    def apply(self, batch: Batch) -> bool:
        """Write a batch to the set.

        Returns False when it does not begin at the checkpoint.
        """

    def promote(self) -> None:
        """Make the set the live one; the live one becomes the previous."""

    def replace_tenants(self, tenants: Sequence[str]) -> None:
        """Put the rows of some tenants in the place of their live rows."""


@runtime_checkable
class FileStore(Protocol):
    """What a store can do whose database is a file."""

    path: str

    @property
    def wal_bytes(self) -> int:
        """The size of the write-ahead log."""

    def copy(self, path: str, is_stopped: Callable[[], bool]) -> int:
        """Copy the tables to a new file; its size in bytes.

        The caller holds the right to rebuild. Raises OutputExists, and StoreUnavailable once `is_stopped` returns True.
        """

    def copied_bytes(self, path: str) -> tuple[int, int]:
        """How far a copy to a path is: bytes written, bytes in all.

        The second is an estimate.
        """

    def vacuum(self) -> None:
        """Rewrite the file without what was deleted; projectors wait.

        The caller holds the right to rebuild.
        """
