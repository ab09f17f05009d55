"""A rebuild derives the tables again while everything runs.

Readers never see fewer rows than before.
"""

import asyncio
import threading
from typing import Any

import pytest

from projector.live.worker import Worker
from projector.projection import project
from projector.rebuild.rebuild import NothingToRollBack, RebuildRefused, rebuild, rollback
from projector.rebuild.verify import verify
from projector.status import status
from projector.store.errors import OtherProjection, RebuildRunning
from projector.store.sqlite import SqliteStore
from streams import Log, LogSummary, keys_of
from tests.support.commands import command
from tests.support.events import event, events
from tests.support.logs import filled
from tests.support.servers import Server
from tests.support.tables import dump

pytestmark = pytest.mark.anyio


async def differences(log: Log, store: SqliteStore) -> list[str]:
    return [difference async for difference in verify(log, store)]


async def test_rebuilt_tables_equal_live_tables(log: Log, store: SqliteStore, worker: Worker) -> None:
    await filled(log, worker)
    before = dump(store)

    rebuilt = await rebuild(log, store)
    await rebuild(log, store)

    assert rebuilt.records == 110
    assert dump(store) == before
    assert await differences(log, store) == []


@pytest.mark.parametrize(("limit", "indexed_first"), [(109, True), (110, False)])
async def test_indexes_grow_with_the_rows_only_when_records_are_many(
    log: Log, store: SqliteStore, worker: Worker, monkeypatch: pytest.MonkeyPatch, limit: int, indexed_first: bool
) -> None:
    await filled(log, worker)
    before, indexed = dump(store), []
    write = store.write

    def look_and_write(*chunk: Any) -> None:
        names = store.execute("SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'events__shadow'").fetchall()
        indexed.append(any(name.startswith("events_by_time") for (name,) in names))
        write(*chunk)

    monkeypatch.setattr("projector.store.sqlite.store.SORT_LIMIT_RECORDS", limit)
    monkeypatch.setattr(store, "write", look_and_write)
    await rebuild(log, store)

    assert indexed[0] is indexed_first
    assert dump(store) == before


async def test_damaged_tables_are_named_and_repaired(log: Log, store: SqliteStore, worker: Worker) -> None:
    await filled(log, worker)
    before = dump(store)
    with store.transaction():
        store._connection.execute("DELETE FROM events WHERE tenant_id = 'acme' AND position = 7")
        store._connection.execute("UPDATE event_sessions SET event_count = 99 WHERE tenant_id = 'beta' AND session_id = 'S1'")

    assert await differences(log, store) == [
        "events of acme: position 7 is in the log, not in the tables",
        "ledger of acme: 50 rows + 3 late duplicates + 1 quarantined + 0 dropped + 0 erased = 54, the checkpoint is 55",
        "event_sessions of beta: first_position 2 differs: event_count is 99, the log says 18",
    ]
    await rebuild(log, store)

    assert dump(store) == before


async def test_a_single_tenant_can_be_rebuilt(log: Log, store: SqliteStore, worker: Worker) -> None:
    await filled(log, worker)
    before = dump(store)
    with store.transaction():
        store._connection.execute("UPDATE events SET properties = '{}' WHERE position = 3")

    await rebuild(log, store, tenants=["acme"])

    assert len(await differences(log, store)) == 1
    await rebuild(log, store, tenants=["beta"])
    assert dump(store) == before


async def test_events_applied_during_a_rebuild_are_in_the_new_tables(
    log: Log, store: SqliteStore, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(log, worker)
    await log.append("gamma", [event(session_id="late", n=i, timestamp=f"2026-02-01T00:00:{i:02}Z") for i in range(20)])
    records = [record async for page in log.read("gamma", 0) for record in page]
    index_shadow, summaries = store.index_shadow, log.summaries

    async def without_gamma() -> list[LogSummary]:
        return [summary for summary in await summaries() if summary.tenant != "gamma"]

    def apply_meanwhile() -> None:
        index_shadow()
        with SqliteStore(store.path) as live:
            assert live.apply([project("gamma", 0, records, 20)]) == [True]

    monkeypatch.setattr(log, "summaries", without_gamma)
    monkeypatch.setattr(store, "index_shadow", apply_meanwhile)

    await rebuild(log, store)
    monkeypatch.undo()

    assert len([row for row in dump(store)["events"] if row[0] == "gamma"]) == 20
    assert await differences(log, store) == []


async def test_readers_never_see_fewer_rows_during_rebuilds_and_appends(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await filled(log, worker, 500)
    with store.transaction():
        store._connection.execute("CREATE VIEW of_a_user AS SELECT count(*) AS n FROM events")
    counts: list[tuple[int, int, int]] = []
    stop = threading.Event()

    def count_rows() -> None:
        reader = SqliteStore(store.path)
        while not stop.is_set():
            with reader.reading() as connection:
                counts.append(
                    connection.execute(
                        "SELECT (SELECT n FROM of_a_user), (SELECT sum(event_count) FROM event_sessions), "
                        "(SELECT sum(position - late_duplicates) FROM checkpoints) - (SELECT count(*) FROM quarantine)"
                    ).fetchone()
                )

    async def append_and_apply() -> None:
        with SqliteStore(store.path) as live:
            projector = Worker(log, live, lease_owner="live:1", lease_seconds=1)
            for i in range(150):
                late = [
                    event(session_id=f"late{i}", n=i, timestamp=f"2026-03-01T{i // 60:02}:{i % 60:02}:{j:02}Z") for j in range(20)
                ]
                await log.append(f"tenant-{i % 7}", late)
                await projector.run_to_end()
                await asyncio.sleep(0.005)

    reader = threading.Thread(target=count_rows)
    reader.start()
    appending = asyncio.create_task(append_and_apply())
    try:
        for subcommand in ("rebuild", "rebuild", "rollback"):
            assert (await asyncio.to_thread(command, server, store, subcommand)).returncode == 0
        await appending
    finally:
        stop.set()
        reader.join()

    assert len(counts) > 10
    assert [rows for rows, _, _ in counts] == sorted(rows for rows, _, _ in counts)
    assert all(rows == counted == applied for rows, counted, applied in counts), "a reader saw tables of two sets"
    assert len(dump(store)["events"]) == 1_002 + 150 * 20
    assert await differences(log, store) == []


async def test_a_users_view_shows_the_rebuilt_tables(log: Log, store: SqliteStore, worker: Worker) -> None:
    await filled(log, worker)
    with store.transaction():
        store._connection.execute("CREATE VIEW of_a_user AS SELECT position FROM events WHERE tenant_id = 'acme'")
        store._connection.execute("DELETE FROM events WHERE position = 7")

    await rebuild(log, store)

    with store.reading() as connection:
        assert (7,) in connection.execute("SELECT position FROM of_a_user").fetchall()


async def test_a_rollback_restores_the_previous_tables_and_catches_up(log: Log, store: SqliteStore, worker: Worker) -> None:
    await filled(log, worker)
    with store.transaction():
        store._connection.execute("CREATE TABLE of_the_first_set AS SELECT * FROM table_sets WHERE suffix = ''")
    await rebuild(log, store)
    await log.append("acme", [event(session_id="new", n=i, timestamp=f"2026-04-01T00:00:{i:02}Z") for i in range(9)])
    await worker.run_to_end()
    after = dump(store)

    await rollback(log, store)

    assert dump(store) == after
    with store.reading() as connection:
        assert connection.execute("SELECT 1 FROM table_sets JOIN of_the_first_set USING (suffix, generation)").fetchone(), (
            "the live set is the first set again"
        )
    await rollback(log, store)
    assert dump(store) == after


async def test_without_previous_tables_there_is_nothing_to_roll_back(log: Log, store: SqliteStore) -> None:
    with pytest.raises(NothingToRollBack):
        await rollback(log, store)


@pytest.mark.parametrize("point", ["during_rebuild", "before_commit:3", "before_swap", "inside_swap", "after_swap"])
async def test_a_rebuild_that_was_killed_at_any_step_can_be_repeated(
    server: Server, log: Log, store: SqliteStore, worker: Worker, point: str
) -> None:
    await filled(log, worker)
    before = dump(store)

    killed = command(server, store, "rebuild", FAILPOINT=point)

    assert killed.returncode == 137
    assert dump(store) == before
    assert command(server, store, "verify").returncode == 0
    assert command(server, store, "rebuild").returncode == 0
    assert dump(store) == before
    with store.reading() as connection:
        suffixes = {suffix for (suffix,) in connection.execute("SELECT suffix FROM table_sets")}
    assert suffixes == {"", "__previous"}


async def test_a_log_with_a_gap_is_refused_with_the_positions(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await filled(log, worker)
    before = dump(store)
    for position in (4, 5, 9):
        server.client.xdel(next(key for key in server.client.keys("*:log:acme")), f"{position}-0")

    with pytest.raises(RebuildRefused, match=r"positions 4 to 5; .* positions 9 to 9"):
        await rebuild(log, store)
    assert dump(store) == before
    refused = command(server, store, "rebuild")
    assert refused.returncode == 1
    assert "the log of acme misses the records at positions 4 to 5" in refused.stderr

    await rebuild(log, store, accept_loss=True)
    rows = dump(store)
    assert [(row[0], row[1], row[4]) for row in rows["quarantine"] if row[4] == "lost"] == [
        ("acme", position, "lost") for position in (4, 5, 9)
    ]


async def test_a_log_that_ends_before_the_checkpoint_is_refused_with_the_positions(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await filled(log, worker)
    before = dump(store)
    server.client.flushall()
    await log.append("acme", events(10))

    with pytest.raises(RebuildRefused, match=r"acme ends at position 10, .* records 11 to 55 .*beta ends at position 0"):
        await rebuild(log, store)

    assert dump(store) == before
    [acme, _] = await status(log, store)
    assert "records 11 to 55 are missing" in (acme.stuck or "")


@pytest.mark.parametrize("act", [rebuild, rollback], ids=["rebuild", "rollback"])
async def test_records_applied_after_the_logs_were_summarized_are_not_taken_for_lost(
    log: Log, store: SqliteStore, worker: Worker, monkeypatch: pytest.MonkeyPatch, act: Any
) -> None:
    await filled(log, worker)
    await rebuild(log, store)
    summary = log.summaries

    async def summaries_then_append(*partitions: Any) -> list[LogSummary]:
        read_summaries = await summary(*partitions)
        monkeypatch.undo()
        await log.append("acme", [event(event_id="b")])
        await worker.run_to_end()
        return read_summaries

    monkeypatch.setattr(log, "summaries", summaries_then_append)
    await act(log, store)

    assert store.tables().checkpoint("acme").position == 56


async def test_a_log_with_other_records_is_refused(server: Server, log: Log, store: SqliteStore, worker: Worker) -> None:
    await log.append("acme", events(5))
    await worker.run_to_end()
    server.client.flushall()
    await log.append("acme", [event(session_id="other", n=i, event_id=str(i)) for i in range(8)])

    with pytest.raises(RebuildRefused, match="holds another record at position 5"):
        await rebuild(log, store)
    assert await worker.run_to_end() == 0

    assert len(dump(store)["events"]) == 5
    [acme] = await status(log, store)
    assert "another record at position 5" in (acme.stuck or "")


async def test_a_log_whose_key_holds_no_stream_is_refused(server: Server, log: Log, store: SqliteStore, worker: Worker) -> None:
    await filled(log, worker)
    server.client.set(keys_of("acme").log, "no stream")

    with pytest.raises(RebuildRefused, match=r"acme ends at position 0, its tables at 55"):
        await rebuild(log, store)

    [acme, beta] = await status(log, store)
    assert "acme ends at position 0" in (acme.stuck or "") and beta.stuck is None
    assert "acme is stuck: the log of acme ends at position 0" in command(server, store, "status").stdout
    [acme_differs, *_] = await differences(log, store)
    assert "acme ends at position 0" in acme_differs


async def test_a_second_rebuild_at_the_same_time_is_refused(log: Log, store: SqliteStore) -> None:
    with store.rebuilding(), pytest.raises(RebuildRunning):
        await rebuild(log, store)


async def test_tables_of_another_projection_version_are_rebuilt_for_all_tenants_only(
    log: Log, store: SqliteStore, worker: Worker
) -> None:
    await filled(log, worker)
    before = dump(store)
    with store.transaction():
        store._connection.execute("UPDATE table_sets SET projection_version = 0")

    with pytest.raises(OtherProjection):
        await rebuild(log, store, tenants=["acme"])
    await rebuild(log, store)
    assert dump(store) == before
    with pytest.raises(OtherProjection):
        await rollback(log, store)


async def test_status_counts_records_rows_and_lag(server: Server, log: Log, store: SqliteStore, worker: Worker) -> None:
    await filled(log, worker)
    await log.append("acme", [event(session_id="queued")])

    acme, beta = await status(log, store)

    assert (acme.records, acme.rows, acme.sessions, acme.lag_records) == (56, 51, 3, 1)
    assert (acme.late_duplicates, acme.quarantined, acme.stuck) == (3, 1, None)
    assert 0 < acme.lag_seconds < 60
    assert (beta.records, beta.lag_records, beta.lag_seconds) == (55, 0, 0.0)
    printed = command(server, store, "status")
    assert "acme" in printed.stdout and "56" in printed.stdout
