"""What control records do to a batch and to the counts of a tenant. Pure.

A control record holds from its position on: what comes before it is written first. A batch without an erasure can be written
whole, with its control records after its rows, because no row depends on what is in quarantine.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from projector.projection.rows import Batch, Counts, EventRow, PlacedControl, QuarantineRow

Named = tuple[int, str, str]  # an event in a record: position, event_hash, hash_parts


class Stretch(msgspec.Struct, frozen=True):
    """What is written together, then the control record after it."""

    rows: list[EventRow]
    quarantined: list[QuarantineRow]
    named: list[Named]
    placed: PlacedControl | None


class Erasure(msgspec.Struct, frozen=True):
    """What an erasure met: how many records were what.

    `positions` counts those that were not erased before.

    The remaining positions were late duplicates.
    """

    positions: int
    dropped: int
    quarantined: int
    rows: int


def stretches(batch: Batch, rows: Sequence[EventRow]) -> Iterator[Stretch]:
    """A batch cut at its control records, in order of position."""
    first = batch.after + 1
    names = [*((row.position, row.event_hash, row.hash_parts) for row in rows), *batch.named]
    for placed in [*batch.control_records, None]:
        here = range(first, placed.position if placed else batch.through + 1)
        yield Stretch(
            [row for row in rows if row.position in here],
            [row for row in batch.quarantined if row.position in here],
            [named for named in names if named[0] in here],
            placed,
        )
        first = here.stop


def without(stretch: Stretch, suppressed: set[int]) -> Stretch:
    """A stretch without the records at positions that must stay out."""
    if not suppressed:
        return stretch
    rows = [row for row in stretch.rows if row.position not in suppressed]
    quarantined = [row for row in stretch.quarantined if row.position not in suppressed]
    return Stretch(rows, quarantined, [], stretch.placed)


def salted_names(salt: str, named: Iterable[Named]) -> dict[str, list[int]]:
    """The salted names of events, with the positions of each.

    An erasure with that salt names events so.
    """
    salted = hashlib.sha1(salt.encode(), usedforsecurity=False)
    positions: dict[str, list[int]] = {}
    for position, event_hash, hash_parts in named:
        name = salted.copy()
        name.update(f"{event_hash}{hash_parts}".encode())
        positions.setdefault(name.hexdigest(), []).append(position)
    return positions


def count_erasure(counts: Counts, erasure: Erasure) -> None:
    """Count erased positions as erased, and no longer as what they were."""
    counts.dropped -= erasure.dropped
    counts.late_duplicates -= erasure.positions - erasure.dropped - erasure.quarantined - erasure.rows
    counts.erased += erasure.positions
