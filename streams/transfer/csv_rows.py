"""Events of a CSV file, a row each; the first row names the members."""

import codecs
import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import msgspec

from streams.errors import PenstockError
from streams.event import Event, check_event
from streams.transfer.format import lines_of
from streams.transfer.import_events import Line, refuse_large
from streams.validation import Rejected

REQUIRED = ("session_id", "event_type", "timestamp")
ROW_GROWTH = 2  # a row may have twice the bytes of its event: quotes and separators

_encode = msgspec.json.Encoder().encode


class BadColumns(PenstockError):
    """The first row of the CSV does not name the columns."""


def csv_lines(file: BinaryIO, limit_bytes: int) -> Iterator[Line]:
    """The rows of a CSV file.

    Every member is a string; an empty cell is no member. Raises BadColumns.
    """
    csv.field_size_limit(limit_bytes * ROW_GROWTH)
    source = _Source(file, limit_bytes * ROW_GROWTH)
    rows = csv.reader(source, strict=True)
    try:
        columns = _columns_of(next(rows, []))
    except (csv.Error, Rejected) as error:
        raise BadColumns(f"the first row of the CSV cannot be read: {error}") from None
    outcome: Event | Rejected
    while True:
        source.begin_row()
        try:
            row = next(rows)
            if not row:
                continue
            outcome = _event_of(columns, row, limit_bytes)
        except StopIteration:
            return
        except Rejected as error:
            outcome = error.with_traceback(None)
        except csv.Error as error:
            outcome = Rejected("", f"is no row of a CSV: {error}")
        yield Line(source.first, source.raw, outcome)


class _Source:
    """The lines that the CSV parser reads, and those of the current row."""

    def __init__(self, file: BinaryIO, limit_bytes: int) -> None:
        self._lines = lines_of(file, limit_bytes)
        self._limit_bytes = limit_bytes
        self._number = 0
        self.begin_row()

    def begin_row(self) -> None:
        self._row_lines: list[bytes] = []
        self._size = 0
        self.first = self._number + 1

    @property
    def raw(self) -> bytes:
        return b"".join(self._row_lines)

    def __iter__(self) -> "_Source":
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._number += 1
        self._row_lines.append(line)
        self._size += len(line)
        if self._size > self._limit_bytes:
            raise Rejected(
                "", f"the row is larger than {self._limit_bytes} bytes, up to line {self._number}; is a quote missing?"
            )
        try:
            return (line.removeprefix(codecs.BOM_UTF8) if self._number == 1 else line).decode()
        except UnicodeDecodeError as error:
            raise Rejected("", f"is not UTF-8: {error.reason} at byte {error.start}") from None


def _columns_of(row: Sequence[str]) -> list[str]:
    """The names of the columns. Raises BadColumns."""
    missing = [name for name in REQUIRED if name not in row]
    if missing:
        raise BadColumns(f"the first row of the CSV must name the columns; {', '.join(missing)} is not there")
    if "" in row:
        raise BadColumns(f"column {row.index('') + 1} of the CSV has no name")
    duplicates = [name for name, count in Counter(row).items() if count > 1]
    if duplicates:
        raise BadColumns(f"two columns of the CSV are named {duplicates[0]!r}")
    return list(row)


def _event_of(columns: Sequence[str], row: Sequence[str], limit_bytes: int) -> Event:
    if len(row) != len(columns):
        raise Rejected("", f"has {len(row)} cells, the first row has {len(columns)}")
    members = {name: cell for name, cell in zip(columns, row, strict=True) if cell}
    raw = _encode(members)
    refuse_large(raw, limit_bytes)
    return check_event(members, raw)
