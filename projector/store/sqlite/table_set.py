"""Batches into one set of SQLite tables, and erasures from it.

Callers hold the transaction.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from projector.projection import NO_CHECKPOINT, Batch, Checkpoint, Counts
from projector.projection.control_effects import stretches, without
from projector.store.sqlite.columns import CHECKPOINT
from projector.store.sqlite.event_rows import EventRows
from projector.store.sqlite.schema import LIVE
from projector.store.sqlite.table_reader import TableReader
from projector.store.sqlite.tombstones import Tombstones
from projector.store.structs import StagedRows
from streams.runtime import failpoint


class TableSet(TableReader):
    """The tables under one suffix, over one connection that writes."""

    def __init__(self, connection: Any, suffix: str = LIVE) -> None:
        super().__init__(connection, suffix)
        self.rows_of_events = EventRows(connection, suffix)
        self._tombstones = Tombstones(connection, suffix)

    def apply(self, batch: Batch, staged: StagedRows | None = None) -> bool:
        """Write a batch that begins at the checkpoint, and move that.

        Returns False, with nothing written, if it does not, or if its tenant was deleted. With `staged`, its rows are in the
        file that is attached as `chunk`.
        """
        before = self.checkpoint(batch.tenant)
        if before.position != batch.after or (before is NO_CHECKPOINT and self.is_deleted(batch.tenant)):
            return False
        counts = Counts(before.late_duplicates, before.dropped, before.erased)
        self._tombstones.mark(batch.tenant, batch.erased, counts)
        if before.erased or batch.erases:  # only then may there be names that stay out
            self._apply_in_stretches(batch, staged, counts)
        else:
            self.rows_of_events.quarantine(batch.quarantined)
            self.rows_of_events.write(batch.tenant, staged or batch.rows, counts)
            self._tombstones.carry_out(batch.tenant, batch.control_records, counts)
        failpoint("between_rows_and_checkpoint")
        self._move_checkpoint(batch.tenant, Checkpoint(batch.through, batch.digest, *msgspec.structs.astuple(counts)))
        return True

    def _apply_in_stretches(self, batch: Batch, staged: StagedRows | None, counts: Counts) -> None:
        """Write all but records with the name of an erased event.

        Control records are carried out in between.
        """
        rows = self.rows_of_events.staged(staged) if staged else batch.rows
        for stretch in stretches(batch, rows):
            suppressed = self._tombstones.suppressed(batch.tenant, stretch.named)
            self._tombstones.mark(batch.tenant, sorted(suppressed), counts)
            kept = without(stretch, suppressed)
            self.rows_of_events.quarantine(kept.quarantined)
            is_whole = staged is not None and len(kept.rows) == len(rows)
            self.rows_of_events.write(batch.tenant, staged if staged and is_whole else kept.rows, counts)
            self._tombstones.carry_out(batch.tenant, [stretch.placed] if stretch.placed else [], counts)

    def _move_checkpoint(self, tenant: str, checkpoint: Checkpoint) -> None:
        self._connection.execute(
            f"INSERT INTO checkpoints{self._suffix} (tenant_id, {CHECKPOINT}) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (tenant_id) DO UPDATE SET position = excluded.position, digest = excluded.digest, "
            "late_duplicates = excluded.late_duplicates, dropped = excluded.dropped, erased = excluded.erased",
            (tenant, *msgspec.structs.astuple(checkpoint)),
        )

    def erase(self, tenant: str, positions: Sequence[int]) -> None:
        """Remove records that a control record erased in another set.

        Positions after this set's checkpoint are left out.

        When this set gets to the control record itself, nothing is left to do.
        """
        before = self.checkpoint(tenant)
        counts = Counts(before.late_duplicates, before.dropped, before.erased)
        self._tombstones.erase(tenant, [position for position in positions if position <= before.position], counts)
        if before is not NO_CHECKPOINT:
            digest = "" if before.position in positions else before.digest
            self._move_checkpoint(tenant, Checkpoint(before.position, digest, *msgspec.structs.astuple(counts)))
