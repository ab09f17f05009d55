"""A chunk's rows reach the tables as if they had been applied batch by batch, whatever is in them."""

import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from projector.projection import Batch, project
from projector.store import LIVE, Chunk, stage_rows
from projector.store.sqlite import SqliteStore
from streams import Record
from tests.support.records import logs, record
from tests.support.tables import dump_memory


def batches_of(log: list[Record], size: int) -> list[Batch]:
    """A log in batches of one size."""
    parts = [log[i : i + size] for i in range(0, len(log), size)]
    return [project("acme", part[0].position - 1, part, part[-1].position) for part in parts]


@settings(deadline=None, max_examples=60)
@given(log=logs(), batch=st.integers(1, 12), chunk=st.integers(1, 4))
def test_any_split_into_chunks_gives_the_same_tables(log: list[Record], batch: int, chunk: int) -> None:
    with tempfile.TemporaryDirectory() as folder, SqliteStore(":memory:") as whole, SqliteStore(":memory:") as pieces:
        whole.apply([project("acme", 0, log, len(log))])

        batches = batches_of(log, batch)
        for i in range(0, len(batches), chunk):
            pieces.write(LIVE, stage_rows(str(Path(folder, str(i))), batches[i : i + chunk]))

        assert dump_memory(pieces) == dump_memory(whole)


def test_a_session_that_began_before_a_chunk_keeps_its_first_position(tmp_path: Path) -> None:
    log = [record(i, session_id=f"S{i % 3}", event_id=f"e{i}") for i in range(1, 31)]
    with SqliteStore(":memory:") as store:
        for i, batch in enumerate(batches_of(log, 10)):
            store.write(LIVE, stage_rows(str(tmp_path / str(i)), [batch]))

        rows = store._connection.execute("SELECT session_id, session_position, count(*) FROM events GROUP BY 1, 2 ORDER BY 2")
        assert rows.fetchall() == [("S1", 1, 10), ("S2", 2, 10), ("S0", 3, 10)]


def test_a_chunk_that_was_written_leaves_no_file(tmp_path: Path) -> None:
    with SqliteStore(":memory:") as store:
        store.write(LIVE, stage_rows(str(tmp_path / "1"), batches_of([record(1)], 1)))

    assert os.listdir(tmp_path) == []


def test_a_chunk_without_a_file_is_written_from_its_batches() -> None:
    log = [record(i, event_id=f"e{i}") for i in range(1, 5)]
    with SqliteStore(":memory:") as store:
        store.write(LIVE, Chunk(batches_of(log, 2)))

        assert [row["position"] for row in store.tables().rows("events", "acme")] == [1, 2, 3, 4]
