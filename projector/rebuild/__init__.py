"""The log replayed: rebuild, rollback, verify, point in time."""

from projector.rebuild.batches import Span, read
from projector.rebuild.rebuild import NothingToRollBack, RebuildRefused, Rebuilt, rebuild, rollback
from projector.rebuild.swap import SwapTooSlow
from projector.rebuild.verify import FROM_THE_START, Since, verify

__all__ = [
    "FROM_THE_START",
    "NothingToRollBack",
    "RebuildRefused",
    "Rebuilt",
    "Since",
    "Span",
    "SwapTooSlow",
    "read",
    "rebuild",
    "rollback",
    "verify",
]
