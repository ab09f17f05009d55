"""Columns as the structs of rows have them, for statements."""

from collections.abc import Iterable
from typing import Any

import msgspec

from projector.projection import Checkpoint, EventRow, QuarantineRow, SessionRow

EVENT = ", ".join(EventRow.__struct_fields__)
QUARANTINE = ", ".join(QuarantineRow.__struct_fields__)
CHECKPOINT = ", ".join(Checkpoint.__struct_fields__)

SESSION = ", ".join(SessionRow.__struct_fields__)
# an empty text made NULL: to bind None takes ten times as long, since the driver looks for an adapter of it
_OPTIONAL = ("user_id", "anonymous_id")
SESSION_VALUES = ", ".join("nullif(?, '')" if name in _OPTIONAL else "?" for name in SessionRow.__struct_fields__)
READ_SESSION = ", ".join(f"coalesce(s.{name}, '')" if name in _OPTIONAL else f"s.{name}" for name in SessionRow.__struct_fields__)


def json_list(values: Iterable[Any]) -> str:
    """A list of values as one bound value, for json_each."""
    return msgspec.json.encode(list(values)).decode()
