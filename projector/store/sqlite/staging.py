"""The rows of a chunk in a file, made by another process.

To bind a row from Python takes longer than to insert it. The file is a SQLite database without keys, indexes or safety; the
tables take the rows of a batch from it with one statement.
"""

from collections.abc import Sequence

import msgspec
import pysqlite3

from projector.projection import Batch, EventRow
from projector.projection.additions import additions_of, values_of
from projector.store.sqlite.columns import EVENT
from projector.store.sqlite.connection import store_errors
from projector.store.structs import Chunk, StagedRows

_PRAGMAS = ("page_size = 65536", "journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE")
_INSERT = f"INSERT INTO rows VALUES ({', '.join('?' * (len(EventRow.__struct_fields__) + 1))})"


def stage_rows(path: str, batches: Sequence[Batch]) -> Chunk:
    """Put the rows of batches into a new file. The chunk's batches have none.

    Raises StoreUnavailable.
    """
    with store_errors():
        return _stage(path, batches)


def _stage(path: str, batches: Sequence[Batch]) -> Chunk:
    connection = pysqlite3.connect(path, isolation_level=None)
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    connection.execute(f"CREATE TABLE rows ({EVENT}, session_position)")
    connection.execute("BEGIN")
    staged: list[StagedRows] = []
    last = 0
    for batch in batches:
        additions = additions_of(batch.rows)
        alone = {single.run.first_position: single.run.first_position for single in additions.sessionless.singles}
        values = values_of(batch.rows, additions, alone)
        connection.executemany(_INSERT, values)
        staged.append(StagedRows(last + 1, last + len(values), additions))
        last += len(values)
    connection.execute("COMMIT")
    connection.close()
    return Chunk([msgspec.structs.replace(batch, rows=[]) for batch in batches], path, staged)
