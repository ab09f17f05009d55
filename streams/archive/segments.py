"""Segments: consecutive records of one tenant as a Parquet file, and back, byte for byte. Pure: records in, bytes out.

A column for each part of a record, so that DuckDB, Polars or Spark read them as they are. What an event's parts would not give
back to the byte, such as an entry that others wrote, is kept whole in `raw`.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from streams.errors import PenstockError
from streams.event import Record, StoredEvent

FORMAT = 1
ROW_GROUP_RECORDS = 10_000
ROW_GROUP_BYTES = 8 * 1024 * 1024  # of bodies: what a reader holds at a time
PAGE_RECORDS = 2_500  # as records: they take many times the memory of the columns
ZSTD_LEVEL = 6
EVENT_VERSION = 1

SCHEMA = pa.schema(
    [
        pa.field("position", pa.int64(), nullable=False),
        pa.field("received_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("version", pa.int16(), nullable=False),
        pa.field("session_id", pa.string()),
        pa.field("event_type", pa.string()),
        pa.field("event_id", pa.string()),
        pa.field("timestamp", pa.string()),
        pa.field("properties", pa.string()),
        pa.field("clock_us", pa.int64()),  # files from before have none
        pa.field("raw", pa.binary()),
    ]
)
_decode = msgspec.json.Decoder(StoredEvent).decode
_encode = msgspec.json.Encoder(order="sorted").encode


class BadSegment(PenstockError):
    """A segment is not what its manifest says, or cannot be read."""


def pack(records: Sequence[Record]) -> bytes:
    """Records as a Parquet file."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        SCHEMA,
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        use_dictionary=["session_id", "event_type"],
        column_encoding={"position": "DELTA_BINARY_PACKED", "received_at": "DELTA_BINARY_PACKED"},
        write_statistics=["position", "received_at", "session_id", "event_type"],
    ) as writer:
        for group in groups(records, ROW_GROUP_RECORDS, ROW_GROUP_BYTES):
            columns = zip(*map(_values, group), strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA))
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def groups(records: Sequence[Record], limit_records: int, limit_bytes: int) -> Iterator[Sequence[Record]]:
    """Records in groups of at most so many, and so many bytes of bodies; a larger one is alone."""
    begin = size = 0
    for number, record in enumerate(records):
        size += len(record.body)
        if number > begin and (number - begin == limit_records or size > limit_bytes):
            yield records[begin:number]
            begin, size = number, len(record.body)
    if begin < len(records):
        yield records[begin:]


def _values(record: Record) -> tuple[Any, ...]:
    """A record's columns."""
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
    """The records of a Parquet file behind a position, a page at a time. Raises BadSegment."""
    try:
        segment = pq.ParquetFile(file)
        for number in range(segment.num_row_groups):
            statistics = segment.metadata.row_group(number).column(0).statistics
            if statistics is None or statistics.max > after:
                # One thread: to decode a row group takes it less time than several take to share it, and less memory.
                table = segment.read_row_group(number, use_threads=False)
                for begin in range(0, table.num_rows, PAGE_RECORDS):
                    page = [record for record in _records(table.slice(begin, PAGE_RECORDS)) if record.position > after]
                    if page:
                        yield page
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise BadSegment(f"cannot be read: {error}") from error


def _records(table: Any) -> Iterator[Record]:
    columns = {name: table.column(name) for name in table.column_names}
    received_at_us = columns["received_at"].cast(pa.int64()).to_pylist()
    parts = [columns[name].to_pylist() for name in ("session_id", "event_type", "event_id", "timestamp", "properties", "raw")]
    clocks = columns["clock_us"].to_pylist() if "clock_us" in columns else [None] * len(table)
    places = zip(columns["position"].to_pylist(), received_at_us, columns["version"].to_pylist(), *parts, clocks, strict=True)
    for position, received, version, session_id, event_type, event_id, timestamp, properties, raw, clock_us in places:
        if raw is None:
            event = StoredEvent(session_id, event_type, timestamp, msgspec.Raw(properties.encode()), event_id, clock_us or 0)
            raw = _encode(event)
        yield Record(position, received, version, raw)
