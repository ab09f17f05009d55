"""The projection: records in, rows out.

Pure: no I/O, no clock, so the same records always give the same rows.
"""

from projector.projection.project import PROJECTION_VERSION, outcome_of, project, row_of
from projector.projection.rows import (
    NO_CHECKPOINT,
    Batch,
    Checkpoint,
    Counts,
    EventRow,
    KnownEvent,
    PlacedControl,
    QuarantineRow,
    SessionRow,
)

__all__ = [
    "NO_CHECKPOINT",
    "PROJECTION_VERSION",
    "Batch",
    "Checkpoint",
    "Counts",
    "EventRow",
    "KnownEvent",
    "PlacedControl",
    "QuarantineRow",
    "SessionRow",
    "outcome_of",
    "project",
    "row_of",
]
