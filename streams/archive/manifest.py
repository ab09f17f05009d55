"""The manifest: which segments a tenant's archive has. Pure; what can be wrong with an archive stands here, too."""

from collections.abc import Sequence

import msgspec

from streams.errors import DamagedArchive

FORMAT = 1
SEGMENT_RECORDS = 100_000
SEGMENT_BYTES = 64 * 1024 * 1024  # of bodies


class Segment(msgspec.Struct, frozen=True):
    """A file of consecutive records: from `first` to `last`, its size and SHA-256, how many bytes their bodies have, and how
    often records were erased from it: each time it is another file, so that who reads by the manifest before meets no mixture."""

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
        """Its file."""
        erased = f".e{self.erasures}" if self.erasures else ""
        return f"{self.first:020}-{self.last:020}{erased}.parquet"


class Erasure(msgspec.Struct, frozen=True):
    """What was erased from segments: the salted digest of whom it was about, up to which position the log was searched, how many
    records those were in all of the log, and when."""

    subject: str
    through: int
    records: int
    at_us: int


class Manifest(msgspec.Struct, frozen=True):
    """A tenant's segments, in order and without gaps from position 1, the SHA-256 of the manifest before this one, and what was
    erased from them."""

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
    """A tenant's manifest from its file at a path. Raises DamagedArchive."""
    try:
        manifest = _decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DamagedArchive(path, f"is no manifest: {error}") from None
    begins = [1, *(segment.last + 1 for segment in manifest.segments)]
    if manifest.tenant != tenant or manifest.format != FORMAT or [segment.first for segment in manifest.segments] != begins[:-1]:
        raise DamagedArchive(path, "does not name this tenant's segments one after another")
    return manifest


def kept_of(segments: Sequence[Segment], records: int, body_bytes: int) -> int:
    """How many segments stay as they are when so many records follow; those behind them are merged with these: a segment when
    it has at most twice as many records as what follows it, so that a record is written anew only as often as that doubles."""
    kept = len(segments)
    while kept and segments[kept - 1].records <= 2 * records:
        records += segments[kept - 1].records
        body_bytes += segments[kept - 1].body_bytes
        if records > SEGMENT_RECORDS or body_bytes > SEGMENT_BYTES:
            break
        kept -= 1
    return kept
