"""Chunks: batches that are written in one transaction. Their rows may be in a file that another process made.

To bind a row from Python takes longer than to insert it. Such a file is a SQLite database without keys, indexes or
safety, and the tables take the rows of a batch with one statement.
"""

from collections.abc import Iterator, Sequence

import msgspec
import pysqlite3

from projector.projection.project import Batch, EventRow, SessionRow, by_session, with_sessions
from projector.projection.sessionization import NOTHING_SESSIONLESS, Sessionless, sessionless_of

COLUMNS = ", ".join(EventRow.__struct_fields__)
_PRAGMAS = ("page_size = 65536", "journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE")
_INSERT = f"INSERT INTO rows VALUES ({', '.join('?' * (len(EventRow.__struct_fields__) + 1))})"


class StagedRows(msgspec.Struct, frozen=True):
    """The rows of a batch in a file, by rowid, and what they add to sessions, as if none had begun before the batch, and those
    that came without one were alone."""

    first: int
    last: int
    sessions: list[SessionRow]
    sessionless: Sessionless = NOTHING_SESSIONLESS


class Chunk(msgspec.Struct, frozen=True):
    """Batches. With a path, their rows are in that file, and `stored` says where, for each batch."""

    batches: list[Batch]
    path: str | None = None
    stored: list[StagedRows] = []

    @property
    def records(self) -> int:
        """How many positions it covers."""
        return sum(batch.through - batch.after for batch in self.batches)

    def parts(self) -> Iterator[tuple[Batch, StagedRows | None]]:
        """Each batch, with where its rows are."""
        yield from zip(self.batches, self.stored if self.path else [None] * len(self.batches), strict=True)


def stage_rows(path: str, batches: Sequence[Batch]) -> Chunk:
    """Put the rows of batches into a new file."""
    connection = pysqlite3.connect(path, isolation_level=None)
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    connection.execute(f"CREATE TABLE rows ({COLUMNS}, session_position)")
    connection.execute("BEGIN")
    stored: list[StagedRows] = []
    last = 0
    for batch in batches:
        sessionless = sessionless_of(batch.rows)
        alone = {single.run.first_position: single.run.first_position for single in sessionless.singles}
        values, sessions = with_sessions(batch.rows, by_session(batch.rows), {}, alone)
        connection.executemany(_INSERT, values)
        stored.append(StagedRows(last + 1, last + len(values), sessions, sessionless))
        last += len(values)
    connection.execute("COMMIT")
    connection.close()
    return Chunk([msgspec.structs.replace(batch, rows=[]) for batch in batches], path, stored)
