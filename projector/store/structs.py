"""What goes into a store and comes out of it.

Times are in microseconds since 1970.
"""

from collections.abc import Iterator, Sequence
from enum import Enum

import msgspec

from projector.projection import Batch, Checkpoint
from projector.projection.additions import Additions
from streams import Limits
from streams.limits import LIMIT_NAMES

PageKey = tuple[int, int]  # event time in microseconds, position: the last row of the previous page


class SetName(Enum):
    """Which set of tables.

    Readers see the live set, a rebuild fills the shadow set, and the previous set is what the last rebuild replaced.
    """

    LIVE = "live"
    SHADOW = "shadow"
    PREVIOUS = "previous"


# The tables of a set, and the columns that a tenant's rows of each are in order of.
KEYS = {
    "events": ("position",),
    "event_sessions": ("first_position",),
    "identity_links": ("identity", "linked_identity"),
    "quarantine": ("position",),
    "tombstones": ("position",),
    "suppressions": ("name",),
    "checkpoints": ("position",),
}


# -- rows that are written ---------------------------------------------------------------------------------------------


class StagedRows(msgspec.Struct, frozen=True):
    """Where a batch's rows are in a file: rowids `first` to `last`.

    `additions` is what they add to sessions.
    """

    first: int
    last: int
    additions: Additions


class Chunk(msgspec.Struct, frozen=True):
    """Batches that are written in one transaction.

    With a path, their rows are in that file, at `staged`, batch by batch.
    """

    batches: list[Batch]
    path: str | None = None
    staged: list[StagedRows] = []

    @property
    def records(self) -> int:
        """How many positions the batches cover."""
        return sum(batch.through - batch.after for batch in self.batches)

    def parts(self) -> Iterator[tuple[Batch, StagedRows | None]]:
        """Each batch, and where its rows are."""
        yield from zip(self.batches, self.staged if self.path else [None] * len(self.batches), strict=True)


# -- what is read ------------------------------------------------------------------------------------------------------


class Filters(msgspec.Struct, frozen=True):
    """What readers may ask for. `since_us` is included, `until_us` is not.

    Both are event times.
    """

    session_id: str | None = None
    user_id: str | None = None
    event_type: str | None = None
    since_us: int | None = None
    until_us: int | None = None


class TableCounts(msgspec.Struct, frozen=True):
    """What the live tables hold, by tenant.

    `deleted` are tenants that were deleted and not created again.
    """

    checkpoints: dict[str, Checkpoint]
    quarantined: dict[str, int]
    deleted: list[str]


class TenantState(msgspec.Struct, frozen=True):
    """A tenant's checkpoint, and whether the tenant is deleted."""

    checkpoint: Checkpoint
    deleted: bool


# -- quarantine --------------------------------------------------------------------------------------------------------


class Selection(msgspec.Struct, frozen=True):
    """Which records in quarantine are meant.

    All, or those of a tenant, at positions, for a reason, up to a position.
    """

    tenant: str | None = None
    positions: Sequence[int] = ()
    reason: str | None = None
    through: int | None = None


class Entry(msgspec.Struct, frozen=True):
    """A record in quarantine, with the size of its body instead of the body."""

    tenant_id: str
    position: int
    received_at: str
    reason: str
    detail: str
    size_bytes: int


class Outcomes(msgspec.Struct, frozen=True):
    """How many of some positions are rows, in quarantine, or in neither table."""

    rows: int
    quarantined: int
    neither: int


# -- keys and limits ---------------------------------------------------------------------------------------------------


class ApiKey(msgspec.Struct, frozen=True):
    """A key as it is kept: its beginning, SHA-256, tenant and role."""

    tenant_id: str
    key_id: str
    key_hash: bytes
    role: str
    label: str
    created_at_us: int
    last_used_at_us: int | None = None


class TenantLimits(msgspec.Struct, frozen=True):
    """A tenant's own limits: None is the limit of the settings, 0 is no limit."""

    tenant_id: str
    events_per_second: int | None = None
    bytes_per_second: int | None = None
    events_per_day: int | None = None

    def over(self, defaults: Limits) -> Limits:
        """The limits in force."""
        own = {name: getattr(self, name) for name in LIMIT_NAMES}
        return msgspec.structs.replace(defaults, **{name: value for name, value in own.items() if value is not None})
