"""Control records are appended once and applied to all tables.

Live, rebuilt, rolled-back and older tables agree about them.
"""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pysqlite3
import pytest

from projector.live.worker import Worker
from projector.rebuild import replay
from projector.rebuild.rebuild import rebuild, rollback
from projector.rebuild.verify import verify
from projector.status import status
from projector.store.sqlite import SqliteStore
from streams import Connection, Log, control, keys_of
from streams.erasure import delete_log
from streams.errors import LogFull, LogUnavailable, TenantDeleted
from streams.keys import ready_key
from tests.support.events import event, events
from tests.support.http import App, opened, process_of
from tests.support.logs import spoiled
from tests.support.proxy import until
from tests.support.servers import Server
from tests.support.tables import dump, quarantined

pytestmark = pytest.mark.anyio


async def differences(log: Log, store: SqliteStore) -> list[str]:
    return [difference async for difference in verify(log, store)]


async def test_a_control_record_gets_the_next_position_as_events_do(server: Server, log: Log) -> None:
    await log.append("acme", events(2))

    assert await control.append(log.connection, "acme", control.Drop([1, 2])) == 3

    assert await log.append("acme", [event(session_id="next")]) != []
    records = [record async for page in log.read("acme", 0) for record in page]
    assert [(record.position, record.version) for record in records] == [(1, 1), (2, 1), (3, 2), (4, 1)]
    assert json.loads(records[2].body) == {"action": "drop", "positions": [1, 2]}
    assert records[2].received_at_us >= records[1].received_at_us
    [(_, fields)] = server.client.xrange(keys_of("acme").log, "3-0", "3-0")
    assert list(fields) == [b"event", b"received_at_us", b"version"]


async def test_a_control_record_that_is_repeated_at_once_is_written_once(log: Log) -> None:
    await log.append("acme", events(2))

    positions = [await control.append(log.connection, "acme", control.Drop([position])) for position in (1, 1, 2, 1)]

    assert positions == [3, 3, 4, 5]
    assert await log.last_position("acme") == 5


async def test_a_control_record_makes_its_tenant_ready_in_every_group_and_wakes_projectors(
    server: Server, log: Log, store: SqliteStore, worker: Worker, tmp_path: Path
) -> None:
    with SqliteStore(str(tmp_path / "other.db")) as other_store:
        second = Worker(log, other_store, lease_owner="test:2", lease_seconds=0.5)
        for projector in (worker, second):
            await projector.run_to_end()
        await log.append("acme", events(2))
        for projector in (worker, second):
            await projector.run_to_end()
        ready = [ready_key(keys_of("acme").partition, f"projector:{tables.tables_id}") for tables in (store, other_store)]
        assert [server.client.zcard(key) for key in ready] == [0, 0]
        listening = server.client.pubsub(ignore_subscribe_messages=True)
        listening.subscribe("penstock:ready")
        listening.get_message(timeout=1)

        await control.append(log.connection, "acme", control.Drop([1]))

        assert [server.client.zrange(key, 0, -1) for key in ready] == [[b"acme"], [b"acme"]]
        message = listening.get_message(timeout=5)
        listening.close()
        assert message and message["data"] == str(keys_of("acme").partition).encode()
        assert [await projector.run_to_end() for projector in (worker, second)] == [1, 1]


async def test_a_control_record_is_refused_for_a_tenant_without_a_log_or_a_deleted_tenant(server: Server, log: Log) -> None:
    with pytest.raises(control.LogMissing, match="acme has no log"):
        await control.append(log.connection, "acme", control.Drop([1]))
    await log.append("acme", events(2))
    await delete_log(log.connection, "acme")

    with pytest.raises(TenantDeleted):
        await control.append(log.connection, "acme", control.Drop([1]))

    assert not await log.holds("acme")


async def test_a_full_or_broken_server_writes_no_part_of_a_control_record(own_server: Server) -> None:
    async with Log(Connection(own_server.url)) as log:
        await log.append("acme", events(2))
        own_server.client.config_set("maxmemory", 1)
        with pytest.raises(LogFull):
            await control.append(log.connection, "acme", control.Drop([1]))
        own_server.client.config_set("maxmemory", 0)
        own_server.client.set(keys_of("beta").log, "no stream")
        with pytest.raises(control.LogMissing):
            await control.append(log.connection, "beta", control.Drop([1]))

        assert await log.last_position("acme") == 2
    own_server.kill()
    async with Log(Connection(own_server.url, budget_seconds=0.2)) as log:
        with pytest.raises(LogUnavailable):
            await control.append(log.connection, "acme", control.Drop([1]))


async def test_live_rebuilt_rolled_back_and_verified_tables_agree_after_a_drop(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await spoiled(server, log)
    await worker.run_to_end()
    await rebuild(log, store)
    assert quarantined(store) == [6, 7, 8, 9]

    await control.append(log.connection, "acme", control.Drop([7, 9, 1]))
    await worker.run_to_end()
    after = dump(store)

    assert quarantined(store) == [6, 8]
    assert after["checkpoints"][0][3:] == (0, 3, 0)
    assert await differences(log, store) == []
    await rollback(log, store)  # to tables from before the drop
    assert dump(store) == after
    await rebuild(log, store)
    assert dump(store) == after
    await rebuild(log, store, tenants=["acme"])
    assert dump(store) == after
    [acme] = await status(log, store)
    assert (acme.records, acme.rows, acme.quarantined, acme.dropped, acme.erased, acme.lag_records) == (10, 5, 2, 3, 0, 0)
    await log.append("acme", [event(session_id="after the drop")])
    assert await worker.run_to_end() == 1


async def test_a_parallel_rebuild_applies_control_records(
    server: Server, log: Log, store: SqliteStore, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "PROCESS_RECORDS", 1)
    for tenant in ("acme", "beta"):
        await spoiled(server, log, tenant)
        await control.append(log.connection, tenant, control.Drop([6, 9]))
    await worker.run_to_end()
    before = dump(store)

    await rebuild(log, store)

    assert dump(store) == before
    assert quarantined(store) == [7, 8, 7, 8]
    assert await differences(log, store) == []


async def test_an_older_database_applies_a_drop_again(server: Server, log: Log, tmp_path: Path) -> None:
    path, yesterday = tmp_path / "tables.db", tmp_path / "yesterday.db"
    with SqliteStore(str(path)) as store:
        await spoiled(server, log)
        worker = Worker(log, store, lease_owner="test:1", lease_seconds=0.5)
        await worker.run_to_end()
        with contextlib.closing(pysqlite3.connect(path)) as connection:
            connection.execute("VACUUM INTO ?", (str(yesterday),))
        await control.append(log.connection, "acme", control.Drop([6, 7]))
        await worker.run_to_end()
        after = dump(store)
    for file in tmp_path.glob("tables.db*"):
        file.unlink()
    yesterday.rename(path)

    settings = {"REDIS_URL": server.url, "DATABASE_URL": f"sqlite:///{path}"}
    with process_of(("-m", "projector", "run"), tmp_path, "projector.log", **settings):
        with SqliteStore(str(path)) as store:
            assert quarantined(store) == [6, 7, 8, 9] or dump(store) == after
            await until(lambda: dump(store) == after)
            assert await differences(log, store) == []


async def test_verify_names_counts_that_do_not_add_up(server: Server, log: Log, store: SqliteStore, worker: Worker) -> None:
    await spoiled(server, log)
    await worker.run_to_end()
    with store.transaction():
        store.execute("DELETE FROM quarantine WHERE position = 6")

    assert await differences(log, store) == [
        "quarantine of acme: position 6 is in the log, not in the tables",
        "ledger of acme: 5 rows + 0 late duplicates + 3 quarantined + 0 dropped + 0 erased = 8, the checkpoint is 9",
    ]


# -- receipts ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def app(server: Server, tmp_path: Path) -> AsyncIterator[App]:
    async with opened(server, tmp_path) as app:
        yield app


async def test_a_receipt_says_that_a_record_was_dropped_and_a_control_record_has_none(server: Server, app: App) -> None:
    await spoiled(server, app.log)
    server.client.delete(*server.client.keys("*:dedup:acme:*"))
    await app.log.append("acme", [event(event_id="a", n=1)])
    await app.project()
    await control.append(app.log.connection, "acme", control.Drop([6, 9]))
    before = await app.get("/api/receipts/11")
    await app.project()

    answers = {position: await app.get(f"/api/receipts/{position}") for position in (5, 6, 7, 9, 10, 11)}

    assert before.status_code == answers.pop(11).status_code == 404
    assert {position: answer.json()["status"] for position, answer in answers.items()} == {
        5: "projected", 6: "dropped", 7: "quarantined", 9: "dropped", 10: "late_duplicate"
    }  # fmt: skip
    assert answers[10].json()["first_position"] == 5
