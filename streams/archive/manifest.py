"""The manifest: which segments a tenant's archive has. Pure."""

from collections.abc import Sequence

import msgspec

from streams.errors import DamagedArchive

FORMAT = 1
SEGMENT_RECORDS = 100_000
SEGMENT_BYTES = 64 * 1024 * 1024  # of bodies


class Segment(msgspec.Struct, frozen=True):
    """A file of consecutive records, `first` to `last`, both included.

    `erasures` counts how often records were erased from it. Each time the segment becomes another file, so a reader that goes
    by the manifest before never meets a mixture.
    """

    first: int
    last: int
    size_bytes: int
    body_bytes: int
    sha256: str
    erasures: int = 0

    @property
    def records(self) -> int:
        """How many records it holds."""
        return self.last - self.first + 1

    @property
    def name(self) -> str:
        """The name of its file."""
        suffix = f".e{self.erasures}" if self.erasures else ""
        return f"{self.first:020}-{self.last:020}{suffix}.parquet"


class Erasure(msgspec.Struct, frozen=True):
    """A data subject that was erased from segments.

    `subject` is a salted digest, `through` the position up to which the log was searched, `records` how many records were
    erased from the whole log.
    """

    subject: str
    through: int
    records: int
    at_us: int


class Manifest(msgspec.Struct, frozen=True):
    """A tenant's segments, in order, and what was erased from them.

    They have no gaps from position 1. `before` is the SHA-256 of the manifest that this one replaced.
    """

    tenant: str
    segments: list[Segment] = []
    before: str = ""
    erasures: list[Erasure] = []
    format: int = FORMAT

    @property
    def through(self) -> int:
        """The last position that is archived, 0 for none."""
        return self.segments[-1].last if self.segments else 0


_decode = msgspec.json.Decoder(Manifest).decode


def parse_manifest(raw: bytes, tenant: str, path: str) -> Manifest:
    """A tenant's manifest from the content of its file. Raises DamagedArchive."""
    try:
        manifest = _decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DamagedArchive(path, f"is no manifest: {error}") from None
    expected = [1, *(segment.last + 1 for segment in manifest.segments)][:-1]
    is_expected = [segment.first for segment in manifest.segments] == expected
    if manifest.tenant != tenant or manifest.format != FORMAT or not is_expected:
        raise DamagedArchive(path, "does not name this tenant's segments one after another")
    return manifest


def kept_of(segments: Sequence[Segment], records: int, body_bytes: int) -> int:
    """How many segments stay as they are when that many records follow.

    The segments after them are merged with the records.

    A segment is merged when it has at most twice as many records as what follows it, so a record is rewritten only each time
    that its tenant's archive doubles.
    """
    kept = len(segments)
    while kept and segments[kept - 1].records <= 2 * records:
        records += segments[kept - 1].records
        body_bytes += segments[kept - 1].body_bytes
        if records > SEGMENT_RECORDS or body_bytes > SEGMENT_BYTES:
            break
        kept -= 1
    return kept
