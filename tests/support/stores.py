"""What a store holds, read through the Store protocol."""

from collections.abc import Sequence
from typing import Any

from projector.projection import Batch, project
from projector.store import Store
from projector.store.structs import KEYS
from streams import Record

Rows = list[dict[str, Any]]


def contents(store: Store, tenant: str = "acme") -> dict[str, Rows]:
    """Every live row of a tenant, by table."""
    with store.snapshot() as live:
        return {table: list(live.rows(table, tenant)) for table in KEYS}


def positions(store: Store, table: str = "events", tenant: str = "acme") -> list[int]:
    """The positions of a tenant's rows in a table."""
    return [row["position"] for row in contents(store, tenant)[table]]


def batches_of(log: Sequence[Record], size: int, tenant: str = "acme") -> list[Batch]:
    """A log in batches of one size."""
    parts = [log[i : i + size] for i in range(0, len(log), size)]
    return [project(tenant, part[0].position - 1, part, part[-1].position) for part in parts]


def apply(store: Store, log: Sequence[Record], tenant: str = "acme", *, after: int = 0) -> None:
    """Apply records, which begin after a position, in one batch."""
    assert store.apply([project(tenant, after, log, log[-1].position)]) == [True]
