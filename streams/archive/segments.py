"""Segments: consecutive records of a tenant as a Parquet file, and back.

Pure: records in, bytes out. Each part of a record has a column, so DuckDB, Polars or Spark read the file as it is. A body that
its parts would not give back to the byte, such as an entry that Penstock did not write, is kept whole in `raw`.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import msgspec

from streams.archive.arrow import arrow
from streams.batches import batches
from streams.errors import PenstockError
from streams.event import EVENT_VERSION, Record, StoredEvent

ROW_GROUP_RECORDS = 10_000
ROW_GROUP_BYTES = 8 * 1024 * 1024  # of bodies: what a reader holds at a time
PAGE_RECORDS = 2_500  # records take many times the memory of the columns
ZSTD_LEVEL = 6

_decode = msgspec.json.Decoder(StoredEvent).decode
_encode = msgspec.json.Encoder(order="sorted").encode


class BadSegment(PenstockError):
    """A segment is not what its manifest says, or cannot be read."""


@cache
def schema() -> Any:
    """The columns of a segment."""
    pa = arrow()
    return pa.schema(
        [
            pa.field("position", pa.int64(), nullable=False),
            pa.field("received_at", pa.timestamp("us", tz="UTC"), nullable=False),
            pa.field("version", pa.int16(), nullable=False),
            pa.field("session_id", pa.string()),
            pa.field("event_type", pa.string()),
            pa.field("event_id", pa.string()),
            pa.field("timestamp", pa.string()),
            pa.field("properties", pa.string()),
            pa.field("clock_us", pa.int64()),  # older files do not have it
            pa.field("raw", pa.binary()),
        ]
    )


def pack(records: Sequence[Record]) -> bytes:
    """Records as a Parquet file."""
    pa = arrow()
    sink = pa.BufferOutputStream()
    with pa.parquet.ParquetWriter(
        sink,
        schema(),
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        use_dictionary=["session_id", "event_type"],
        column_encoding={"position": "DELTA_BINARY_PACKED", "received_at": "DELTA_BINARY_PACKED"},
        write_statistics=["position", "received_at", "session_id", "event_type"],
    ) as writer:
        for group in batches(records, max_items=ROW_GROUP_RECORDS, max_bytes=ROW_GROUP_BYTES, size_of=body_bytes):
            columns = zip(*map(_values, group), strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema(), strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema()))
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def body_bytes(record: Record) -> int:
    """The size by which records are put into batches."""
    return len(record.body)


def _values(record: Record) -> tuple[Any, ...]:
    """The columns of a record."""
    head = (record.position, record.received_at_us, record.version)
    if record.version == EVENT_VERSION:
        try:
            event = _decode(record.body)
            if _encode(event) == record.body:
                parts = (event.session_id, event.event_type, event.event_id, event.timestamp, bytes(event.properties).decode())
                return (*head, *parts, event.clock_us or None, None)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
    return (*head, None, None, None, None, None, None, record.body)


def unpack(file: Any, after: int) -> Iterator[list[Record]]:
    """Pages of the records of a Parquet file after a position.

    Raises BadSegment.
    """
    pa = arrow()
    try:
        segment = pa.parquet.ParquetFile(file)
        for number in range(segment.num_row_groups):
            statistics = segment.metadata.row_group(number).column(0).statistics
            if statistics is None or statistics.max > after:
                # One thread: it decodes a row group in less time than several threads take to share it, and in less memory.
                table = segment.read_row_group(number, use_threads=False)
                for start in range(0, table.num_rows, PAGE_RECORDS):
                    page = [record for record in _records(table.slice(start, PAGE_RECORDS)) if record.position > after]
                    if page:
                        yield page
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise BadSegment(f"cannot be read: {error}") from error


def _records(table: Any) -> Iterator[Record]:
    columns = {name: table.column(name) for name in table.column_names}
    received_at_us = columns["received_at"].cast(arrow().int64()).to_pylist()
    parts = [columns[name].to_pylist() for name in ("session_id", "event_type", "event_id", "timestamp", "properties", "raw")]
    clocks = columns["clock_us"].to_pylist() if "clock_us" in columns else [None] * len(table)
    rows = zip(columns["position"].to_pylist(), received_at_us, columns["version"].to_pylist(), *parts, clocks, strict=True)
    for position, received_us, version, session_id, event_type, event_id, timestamp, properties, raw, clock_us in rows:
        if raw is None:
            event = StoredEvent(session_id, event_type, timestamp, msgspec.Raw(properties.encode()), event_id, clock_us or 0)
            raw = _encode(event)
        yield Record(position, received_us, version, raw)
