"""An archiver for tests."""

from streams import Log
from streams.archive import Archive
from streams.tiering import Archiver


def archiver(log: Log, *, lease_owner: str = "test", hot_seconds: float = 0, hot_records: int = 10**9) -> Archiver:
    return Archiver(log, Archive(log.archive_url), lease_owner=lease_owner, hot_seconds=hot_seconds, hot_records=hot_records)
