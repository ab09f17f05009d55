"""A log as a file: lines of JSON that anybody can read, with all that is needed to put every record where it was.

A file is one or more parts, each a header and the records behind its `after`; a part goes on where the one before ended, so
exports of the same log may be joined with cat. A record's `digest` is of its position, when it was received, its version and
its bytes; a part's `through` tells a file that lost its end from one that has it.
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
LINE_LIMIT_BYTES = 64 * 1024 * 1024  # forty times the largest event that the door takes

Whole = Annotated[int, msgspec.Meta(ge=0)]


class BadLine(PenstockError):
    """A line of the file is not what it must be: its number, and why."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"line {number} {reason}")
        self.number = number


class Header(msgspec.Struct, frozen=True):
    """The first line of a part: whose log it is, behind which position it begins, and up to which it goes."""

    format: str
    version: int
    tenant: str
    after: Whole
    through: Whole


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A record's line: its bytes are `event` as they are, or in base64."""

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
    """Lines for the records behind `after` up to `through`, some at a time, with the position that they reach.

    Raises Gap after the records before it, LogUnavailable."""
    yield after, msgspec.json.encode(Header(FORMAT, FORMAT_VERSION, tenant, after, through)) + b"\n"
    async for page in log.read(tenant, after, through=through):
        yield page[-1].position, b"".join([line_of(record) for record in page])


def line_of(record: Record) -> bytes:
    """A record as a line."""
    begin = b'{"position":%d,"received_at_us":%d,"version":%d,"digest":"%s"' % (
        record.position,
        record.received_at_us,
        record.version,
        _digest_of(record).encode(),
    )
    if record.version and _fits_a_line(record.body):
        return b'%s,"event":%s}\n' % (begin, record.body)
    return b'%s,"base64":"%s"}\n' % (begin, base64.b64encode(record.body))


def _digest_of(record: Record) -> str:
    return digest_of(b"%d %d %d %s" % (record.position, record.received_at_us, record.version, record.body))


def _fits_a_line(body: bytes) -> bool:
    """Whether the bytes are JSON that stands in a line of JSON and comes out of it as it was."""
    if b"\n" in body or body != body.strip():
        return False
    if body.count(b"[") + body.count(b"{") > DEPTH_LIMIT and depth_of(body) > DEPTH_LIMIT:
        return False  # a parser may read it alone and not inside of a line
    try:
        decode_json(body)
    except Rejected:
        return False
    return True


# -- reading -------------------------------------------------------------------------------------------------------------


def lines_of(file: BinaryIO, limit_bytes: int) -> Iterator[bytes]:
    """A file's lines, each with its end; of one with more bytes than the limit, so many and one, without the rest."""
    while line := file.readline(limit_bytes + 1):
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = file.readline(64 * 1024)
        yield line


def read_log(lines: Iterable[bytes], *, to_the_end: bool = True) -> Iterator[Header | Record]:
    """The headers and records of a file, which follow each other without a gap. Raises BadLine at the first line that is
    not as it was written, and when the file ends before it should."""
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
        said = f"format {header.format!r} version {header.version}"
        raise BadLine(number, f"says {said}; what is read here is {FORMAT!r} version {FORMAT_VERSION}")
    if before and (header.tenant, header.after) != (before.tenant, position):
        expected = f"the log of {before.tenant} behind position {position}"
        raise BadLine(number, f"begins the log of {header.tenant} behind position {header.after}; it must go on with {expected}")
    return header


def _record_in(number: int, line: bytes) -> Record:
    try:
        found = _decode_line(line)
        body = bytes(found.event) if found.base64 is None else base64.b64decode(found.base64, validate=True)
    except (*DECODE_ERRORS, binascii.Error, ValueError) as error:
        raise BadLine(number, f"is damaged: {error}") from None
    if bool(bytes(found.event)) is (found.base64 is not None):
        raise BadLine(number, "is damaged: it has no event, or two")
    record = Record(found.position, found.received_at_us, found.version, body)
    if found.digest not in (None, _digest_of(record)):
        raise BadLine(number, "is damaged: its digest is another")
    if found.base64 is None and not _fits_a_line(body):
        raise BadLine(number, "is damaged: its event is no JSON")
    return record
