"""The archive: the part of each log that has left memory.

Segments in a directory or a bucket:

tenant=acme/00000000000000000001-00000000000000100000.parquet   a segment: positions 1 to 100,000
tenant=acme/manifest.json                                       the segments, and what was erased; replaced as a whole

A segment is written whole, synced and read back before the manifest names it. It is removed after the manifest no longer names
it. Only the manifest is believed: a file that no manifest names does not exist.
"""

import contextlib
import hashlib
import io
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from streams.archive.files import Files
from streams.archive.manifest import Erasure, Manifest, Segment, kept_of, parse_manifest
from streams.archive.segments import BadSegment, pack, unpack
from streams.control import erased_from
from streams.errors import ArchiveMoved, DamagedArchive
from streams.event import Record
from streams.runtime.failpoints import failpoint

MANIFEST, BEFORE = "manifest.json", "manifest.before.json"
ORPHAN_SECONDS = 3_600.0  # an archiver that lost its lease may name a file that it wrote until then
READ_TRIES = 10  # while the segments that come next are merged by another process


class Archive:
    """The segments behind a URL: file:///…, s3://…, gs://….

    Its methods wait for files; call them in a thread.
    """

    def __init__(self, url: str) -> None:
        self._files = Files(url)

    # -- manifests ---------------------------------------------------------------------------------------------------

    def manifest(self, tenant: str) -> Manifest:
        """A tenant's manifest, without segments when there is none.

        Raises DamagedArchive, ArchiveUnavailable.
        """
        return self._manifest(tenant)[0]

    def _manifest(self, tenant: str) -> tuple[Manifest, bytes]:
        path = self._files.path(tenant, MANIFEST)
        raw = self._files.get(path)
        if raw is None:
            return Manifest(tenant), b""
        return parse_manifest(raw, tenant, path), raw

    def tenants(self) -> list[str]:
        """Every tenant that has an archive, by name."""
        tenants = sorted(self._files.tenants())
        return [tenant for tenant in tenants if self._files.get(self._files.path(tenant, MANIFEST)) is not None]

    # -- segments ----------------------------------------------------------------------------------------------------

    def add(self, tenant: str, records: Sequence[Record]) -> Manifest:
        """Archive the records that come next; return the new manifest.

        The small segments before them are merged with them, see `kept_of`. Raises ArchiveMoved, DamagedArchive,
        ArchiveUnavailable; the archive is then as it was, except for a file that no manifest names.
        """
        manifest, raw = self._manifest(tenant)
        if records[0].position != manifest.through + 1:
            raise ArchiveMoved(f"the archive of {tenant} ends at {manifest.through}, the records begin at {records[0].position}")
        kept = kept_of(manifest.segments, len(records), sum(len(record.body) for record in records))
        small = manifest.segments[kept:]
        merged = [record for segment in small for page in self._unpacked(tenant, segment, 0) for record in page]
        written = self._write(tenant, [*merged, *records])
        replacement = self._replace(tenant, raw, [*manifest.segments[:kept], written], manifest.erasures)
        for segment in small:
            self._files.remove(self._files.path(tenant, segment.name))
        return replacement

    def erase(self, tenant: str, positions: Sequence[int], erasure: Erasure) -> int:
        """Replace records by erased records; return how many segments changed.

        First the segments are rewritten, then the manifest names the new files, then every file goes that no manifest names.
        No other process may write meanwhile. Raises ArchiveMoved, DamagedArchive, ArchiveUnavailable.
        """
        manifest, raw = self._manifest(tenant)
        segments = [self._erased(tenant, segment, positions) for segment in manifest.segments]
        changed = sum(new != old for new, old in zip(segments, manifest.segments, strict=True))
        if changed:
            failpoint("between_segments_and_manifest")
            self._replace(tenant, raw, segments, [*manifest.erasures, erasure])
            failpoint("between_manifest_and_removal")
        named = {segment.name for segment in segments} | {MANIFEST, BEFORE}
        for info in self._files.of_tenant(tenant):
            if info.base_name not in named:
                self._files.remove(info.path)
        return changed

    def _erased(self, tenant: str, segment: Segment, positions: Sequence[int]) -> Segment:
        """The segment without some records.

        It is the same segment when it holds none of them any more.
        """
        of_segment = set(positions[bisect_left(positions, segment.first) : bisect_right(positions, segment.last)])
        if not of_segment:
            return segment
        records = [record for page in self._unpacked(tenant, segment, 0) for record in page]
        remaining = [erased_from(record) if record.position in of_segment else record for record in records]
        return segment if remaining == records else self._write(tenant, remaining, segment.erasures + 1)

    def _write(self, tenant: str, records: Sequence[Record], erasures: int = 0) -> Segment:
        """Write a segment and read it back."""
        packed = pack(records)
        digest = hashlib.sha256(packed).hexdigest()
        body_bytes = sum(len(record.body) for record in records)
        segment = Segment(records[0].position, records[-1].position, len(packed), body_bytes, digest, erasures)
        self._files.put(self._files.path(tenant, segment.name), packed)
        if not _is_same(self._unpacked(tenant, segment, 0), records):
            raise DamagedArchive(self._files.path(tenant, segment.name), "does not give back the records that were written to it")
        return segment

    def _replace(self, tenant: str, before: bytes, segments: list[Segment], erasures: list[Erasure]) -> Manifest:
        """Replace a manifest if it is still `before`; return the new one.

        Raises ArchiveMoved.
        """
        manifest = Manifest(tenant, segments, hashlib.sha256(before).hexdigest() if before else "", erasures)
        path = self._files.path(tenant, MANIFEST)
        if (self._files.get(path) or b"") != before:
            raise ArchiveMoved(f"the manifest of {tenant} has changed meanwhile")
        if before:
            self._files.put(self._files.path(tenant, BEFORE), before)
        self._files.put(path, msgspec.json.format(msgspec.json.encode(manifest)))
        return manifest

    def read(self, tenant: str, after: int) -> Iterator[list[Record]]:
        """Pages of a tenant's archived records after a position.

        Raises DamagedArchive, ArchiveUnavailable.
        """
        position = after
        for tries_left in reversed(range(READ_TRIES)):
            manifest = self.manifest(tenant)
            try:
                for segment in manifest.segments:
                    if segment.last > position:
                        for page in self._unpacked(tenant, segment, position):
                            yield page
                            position = page[-1].position
                return
            except DamagedArchive:
                if not tries_left or self.manifest(tenant) == manifest:  # otherwise the segment was merged and removed
                    raise

    def find(self, tenant: str, positions: Iterable[int]) -> dict[int, Record]:
        """The archived records at some positions; each segment is read once.

        The records of a damaged segment are left out: `read` names the damage. Raises ArchiveUnavailable, and DamagedArchive
        for a manifest.
        """
        wanted = sorted(set(positions))
        records: dict[int, Record] = {}
        manifest = self.manifest(tenant)
        for _ in range(READ_TRIES):
            for segment in manifest.segments:
                of_segment = wanted[bisect_left(wanted, segment.first) : bisect_right(wanted, segment.last)]
                if of_segment and of_segment[0] not in records:
                    with contextlib.suppress(DamagedArchive):
                        records |= self._picked(tenant, segment, of_segment)
            if len(records) == len(wanted) or (newer := self.manifest(tenant)) == manifest:
                break
            manifest = newer  # a segment may have been merged and removed
        return records

    def _picked(self, tenant: str, segment: Segment, positions: Sequence[int]) -> dict[int, Record]:
        wanted = set(positions)
        picked: dict[int, Record] = {}
        for page in self._unpacked(tenant, segment, positions[0] - 1):
            picked |= {record.position: record for record in page if record.position in wanted}
            if len(picked) == len(wanted):
                break
        return picked

    def _unpacked(self, tenant: str, segment: Segment, after: int) -> Iterator[list[Record]]:
        """Pages of a segment's records after a position.

        The segment is checked against its digest. Raises DamagedArchive.
        """
        path = self._files.path(tenant, segment.name)
        raw = self._files.get(path)
        if raw is None:
            raise DamagedArchive(path, f"is missing; it held the records {segment.first} to {segment.last}", segment.last)
        if len(raw) != segment.size_bytes or hashlib.sha256(raw).hexdigest() != segment.sha256:
            raise DamagedArchive(path, f"is damaged; it held the records {segment.first} to {segment.last}", segment.last)
        expected = max(after + 1, segment.first)
        try:
            for page in unpack(io.BytesIO(raw), after):
                if page[0].position != expected or page[-1].position != expected + len(page) - 1:
                    raise DamagedArchive(path, f"misses the record {expected}", segment.last)
                expected += len(page)
                yield page
        except BadSegment as error:
            raise DamagedArchive(path, str(error), segment.last) from error
        if expected != segment.last + 1:
            raise DamagedArchive(path, f"misses the records {expected} to {segment.last}", segment.last)

    # -- problems and removal -------------------------------------------------------------------------------------------

    def problems(self, tenant: str) -> Iterator[str]:
        """What is wrong with a tenant's archive, a sentence for each problem.

        Looks at the manifest, at the manifest before it, and at each segment.
        """
        try:
            manifest, raw = self._manifest(tenant)
        except DamagedArchive as error:
            yield str(error)
            return
        before = self._files.get(self._files.path(tenant, BEFORE))
        is_before = before is not None and hashlib.sha256(before).hexdigest() == manifest.before
        if manifest.before and not is_before and before != raw:  # they are equal when a process was killed between two writes
            yield f"{self._files.path(tenant, BEFORE)}: is not the manifest that the current one replaced"
        for segment in manifest.segments:
            try:
                for _ in self._unpacked(tenant, segment, 0):
                    pass
            except DamagedArchive as error:
                yield str(error)

    def tidy(self, tenant: str, *, age_seconds: float = ORPHAN_SECONDS) -> int:
        """Remove files that an archiver left when it was killed; return the count.

        Those are files of that age that neither the manifest nor the manifest before it names. Nothing is removed where one of
        the two cannot be read or is missing. The caller has the tenant's archive lease.
        """
        try:
            manifest, raw = self._manifest(tenant)
            before_raw = self._files.get(self._files.path(tenant, BEFORE))
            before = parse_manifest(before_raw, tenant, BEFORE) if before_raw else manifest
        except DamagedArchive:
            return 0
        if not raw or (manifest.before and not before_raw):
            return 0
        named = {segment.name for segment in (*manifest.segments, *before.segments)} | {MANIFEST, BEFORE}
        newest_ns = time.time_ns() - int(age_seconds * 1e9)
        unnamed = [info for info in self._files.of_tenant(tenant) if info.base_name not in named]
        orphans = [info.path for info in unnamed if info.mtime_ns is not None and info.mtime_ns <= newest_ns]
        for path in orphans:
            self._files.remove(path)
        return len(orphans)

    def remove(self, tenant: str) -> int:
        """Remove a tenant's archive, the manifest first; return the file count."""
        paths = sorted((info.path for info in self._files.of_tenant(tenant)), key=lambda path: MANIFEST not in path)
        for path in paths:
            self._files.remove(path)
        if paths:
            self._files.remove_folder(tenant)
        return len(paths)


def _is_same(pages: Iterable[Sequence[Record]], records: Sequence[Record]) -> bool:
    """Whether the pages hold exactly these records.

    Compared page by page, so that none is in memory twice.
    """
    compared = 0
    for page in pages:
        if list(page) != list(records[compared : compared + len(page)]):
            return False
        compared += len(page)
    return compared == len(records)
