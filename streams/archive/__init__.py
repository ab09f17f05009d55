"""The archive: sealed Parquet segments, and the manifest that names them.

Nothing here imports streams.log: the log reads the archive. What needs both stands in streams.tiering.
"""

from streams.archive.manifest import SEGMENT_BYTES, SEGMENT_RECORDS, Erasure, Manifest, Segment
from streams.archive.store import Archive

__all__ = ["SEGMENT_BYTES", "SEGMENT_RECORDS", "Archive", "Erasure", "Manifest", "Segment"]
