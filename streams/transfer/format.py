"""The export format: a log as lines of JSON.

A line has all that puts its record back at its position. A file is one or more parts. A part is a header and the records after
its `after`. It goes on where the part before ended, so exports of the same log may be joined with cat. A record's `digest` is
of its position, its time of receipt, its version and its body. A part's `through` shows whether the file lost its end.
"""

import base64
import binascii
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Annotated, BinaryIO

import msgspec

from streams.errors import PenstockError
from streams.event import Record, digest_of
from streams.log import Log
from streams.validation import DEPTH_LIMIT, Rejected, decode_json, depth_of

FORMAT = "penstock-log"
FORMAT_VERSION = 1
LINE_LIMIT_BYTES = 64 * 1024 * 1024  # forty times the largest event that an endpoint accepts

Whole = Annotated[int, msgspec.Meta(ge=0)]


class BadLine(PenstockError):
    """A line of the file is not as export writes it."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"line {number} {reason}")
        self.number = number


class Header(msgspec.Struct, frozen=True):
    """The first line of a part.

    The part holds the tenant's records after `after` up to `through`.
    """

    format: str
    version: int
    tenant: str
    after: Whole
    through: Whole


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The line of a record.

    Its body stands in `event` as it is, or in `base64`.
    """

    position: Whole
    received_at_us: Whole
    version: Whole
    digest: str | None = None
    event: msgspec.Raw = msgspec.Raw()
    base64: str | None = None


_decode_header = msgspec.json.Decoder(Header).decode
_decode_line = msgspec.json.Decoder(_Line).decode
DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


# -- writing -------------------------------------------------------------------------------------------------------------


async def export(log: Log, tenant: str, after: int, through: int) -> AsyncIterator[tuple[int, bytes]]:
    """Lines for the records after `after` up to `through`.

    They come page by page, each page with its last position. Raises Gap after the records before the gap, LogUnavailable.
    """
    yield after, msgspec.json.encode(Header(FORMAT, FORMAT_VERSION, tenant, after, through)) + b"\n"
    async for page in log.read(tenant, after, through=through):
        yield page[-1].position, b"".join([line_of(record) for record in page])


def line_of(record: Record) -> bytes:
    """The line of a record."""
    start = b'{"position":%d,"received_at_us":%d,"version":%d,"digest":"%s"' % (
        record.position,
        record.received_at_us,
        record.version,
        _digest_of(record).encode(),
    )
    if record.version and _fits_a_line(record.body):
        return b'%s,"event":%s}\n' % (start, record.body)
    return b'%s,"base64":"%s"}\n' % (start, base64.b64encode(record.body))


def _digest_of(record: Record) -> str:
    return digest_of(b"%d %d %d %s" % (record.position, record.received_at_us, record.version, record.body))


def _fits_a_line(body: bytes) -> bool:
    """Whether a body is JSON that a line can hold and give back unchanged."""
    if b"\n" in body or body != body.strip():
        return False
    if body.count(b"[") + body.count(b"{") > DEPTH_LIMIT and depth_of(body) > DEPTH_LIMIT:
        return False  # a parser may read it alone and not inside a line
    try:
        decode_json(body)
    except Rejected:
        return False
    return True


# -- reading -------------------------------------------------------------------------------------------------------------


def lines_of(file: BinaryIO, limit_bytes: int) -> Iterator[bytes]:
    """The lines of a file, each with its line break.

    Of a line with more than `limit_bytes` bytes the first `limit_bytes` + 1 come.
    """
    while line := file.readline(limit_bytes + 1):
        chunk = line
        while chunk and not chunk.endswith(b"\n"):
            chunk = file.readline(64 * 1024)
        yield line


def read_log(lines: Iterable[bytes], *, to_the_end: bool = True) -> Iterator[Header | Record]:
    """The headers and records of a file, without a gap between them.

    Raises BadLine at the first line that is not as it was written; with `to_the_end`, also when the file lost its end.
    """
    header: Header | None = None
    number = position = 0
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            raise BadLine(number, "is cut" if len(line) <= LINE_LIMIT_BYTES else f"is longer than {LINE_LIMIT_BYTES} bytes")
        if header is None or line.startswith(b'{"format"'):
            header = _header_in(number, line, header, position)
            position = header.after
            yield header
        else:
            record = _record_in(number, line)
            if record.position != position + 1:
                raise BadLine(number, f"has position {record.position}, after {position} comes {position + 1}")
            position += 1
            yield record
    if header is None:
        raise BadLine(1, "is missing: the file is empty")
    if to_the_end and position < header.through:
        raise BadLine(number + 1, f"is missing: the file ends at position {position}, its header says {header.through}")


def _header_in(number: int, line: bytes, before: Header | None, position: int) -> Header:
    try:
        header = _decode_header(line)
    except DECODE_ERRORS as error:
        raise BadLine(number, f"is not the header of an export: {error}") from None
    if header.format != FORMAT or header.version != FORMAT_VERSION:
        read = f"format {header.format!r} version {header.version}"
        raise BadLine(number, f"says {read}; Penstock reads {FORMAT!r} version {FORMAT_VERSION}")
    if before and (header.tenant, header.after) != (before.tenant, position):
        expected = f"the log of {before.tenant} after position {position}"
        raise BadLine(number, f"begins the log of {header.tenant} after position {header.after}; it must go on with {expected}")
    return header


def _record_in(number: int, line: bytes) -> Record:
    try:
        fields = _decode_line(line)
        body = bytes(fields.event) if fields.base64 is None else base64.b64decode(fields.base64, validate=True)
    except (*DECODE_ERRORS, binascii.Error, ValueError) as error:
        raise BadLine(number, f"is damaged: {error}") from None
    if bool(bytes(fields.event)) is (fields.base64 is not None):
        raise BadLine(number, "is damaged: it has no event, or two")
    record = Record(fields.position, fields.received_at_us, fields.version, body)
    if fields.digest not in (None, _digest_of(record)):
        raise BadLine(number, "is damaged: its digest does not match")
    if fields.base64 is None and not _fits_a_line(body):
        raise BadLine(number, "is damaged: its event is no JSON")
    return record
