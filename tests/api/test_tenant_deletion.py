"""A deleted tenant leaves nothing, and nothing of it comes back.

Other tenants are not affected.
"""

import contextlib
import hashlib
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.auth.credentials import KEY_ID_LENGTH, hash_of, new_key
from projector import ApiKey, TenantLimits
from projector.live.worker import Worker
from projector.projection import project
from projector.rebuild.rebuild import rebuild, rollback
from projector.rebuild.verify import verify
from projector.status import status
from projector.store.sqlite import SqliteStore
from streams import Connection, Log, keys_of
from streams.erasure import delete_log
from streams.errors import TenantDeleted
from tests.support.dumps import everything_in
from tests.support.events import body, event, events
from tests.support.http import environment, running, wait_until
from tests.support.servers import Server

pytestmark = pytest.mark.anyio

DELETED, STAYS = "delete-me-7f3", "stays"


def command(server: Server, folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `api tenant` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "api", "tenant", *arguments],
        cwd=folder,
        env=environment(REDIS_URL=server.url, DATA_DIR=folder, **more),
        capture_output=True,
        text=True,
        timeout=60,
    )


def everything_of(store: SqliteStore) -> Iterator[bytes]:
    """Every row of every table, as bytes."""
    with store.reading() as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
            yield from (repr(row).encode() for row in connection.execute(f"SELECT * FROM {table}"))


def digest_of_tenant(server: Server, store: SqliteStore, tenant: str) -> str:
    """A digest of all data of a tenant, without the expiry of its keys."""
    keys = keys_of(tenant)
    found = [repr(server.client.xrange(keys.log)), repr(sorted(server.client.scan_iter(match=f"{keys.dedup}*", count=10_000)))]
    found.append(repr(sorted(server.client.hgetall(keys.usage).items())))
    with store.reading() as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").fetchall():
            if "tenant_id" in [column[1] for column in connection.execute(f"PRAGMA table_xinfo({table})")]:
                found += [repr(row) for row in connection.execute(f"SELECT * FROM {table} WHERE tenant_id = ?", (tenant,))]
    return hashlib.sha256("\n".join(found).encode()).hexdigest()


async def fill(server: Server, log: Log, store: SqliteStore, worker: Worker, tenant: str) -> None:
    """Create everything that a tenant can have.

    That is records, sessions, late duplicates, quarantine, refusals, keys, limits, previous tables.
    """
    await log.append(tenant, [event(canary=tenant, event_id="e1"), *events(30)], rejected=2)
    await log.append(tenant, events(3))
    for event_hash in list(server.client.scan_iter(match=f"{keys_of(tenant).dedup}*"))[:2]:
        server.client.delete(event_hash)
    await log.append(tenant, [*events(30), event(canary=f"{tenant} again", event_id="e1")])
    secret = new_key("write")
    store.api_keys.add(ApiKey(tenant, secret[:KEY_ID_LENGTH], hash_of(secret), "write", f"of {tenant}", 1))
    store.tenant_limits.keep(TenantLimits(tenant, events_per_day=1_000_000))
    await worker.run_to_end()


# -- deletion ----------------------------------------------------------------------------------------------------------


async def test_nothing_of_a_deleted_tenant_is_in_any_key_or_table(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    for tenant in (DELETED, STAYS):
        await fill(server, log, store, worker, tenant)
    await rebuild(log, store)
    before = digest_of_tenant(server, store, STAYS)
    assert any(DELETED.encode() in content for content in everything_in(server))

    counts = await delete_log(log.connection, DELETED)
    removed = store.delete_tenant(DELETED)

    assert [content for content in (*everything_in(server), *everything_of(store)) if DELETED.encode() in content] == []
    assert digest_of_tenant(server, store, STAYS) == before
    assert counts.records >= 31 and counts.dedup_keys >= 30
    assert removed["events"] == 2 * 31 and removed["event_sessions"] == 2 * 3  # of the live and the previous set
    assert (removed["checkpoints"], removed["api_keys"], removed["tenant_limits"]) == (2, 1, 1)
    assert [difference async for difference in verify(log, store)] == []
    await rollback(log, store)
    assert [content for content in everything_of(store) if DELETED.encode() in content] == []


async def test_the_append_only_file_is_rewritten_without_the_tenant(own_server: Server, tmp_path: Path) -> None:
    async with Log(Connection(own_server.url)) as log:
        await log.append(DELETED, [event(canary="c4n4ry")])
        await log.append(STAYS, [event(canary="stays here")])
        await delete_log(log.connection, DELETED)
    wait_until(lambda: not own_server.client.info("persistence")["aof_rewrite_in_progress"], "the file is written anew")

    written = b"".join(file.read_bytes() for file in own_server.folder.rglob("*aof*") if file.is_file())
    assert b"c4n4ry" not in written and DELETED.encode() not in written
    assert b"stays here" in written


def test_a_tenant_is_deleted_while_everything_runs_and_clients_send(server: Server, tmp_path: Path) -> None:
    answers: list[int] = []
    stop = threading.Event()
    number = itertools.count()

    def write(url: str, tenant: str) -> None:
        with httpx.Client(base_url=url, headers={"X-Tenant-ID": tenant}) as client:
            while not stop.is_set():
                raw = body(event_id=f"{tenant} {next(number)}", canary=tenant) if next(number) % 5 else b"{}"
                answer = client.post("/api/events", content=raw)
                if tenant == DELETED:
                    answers.append(answer.status_code)
                else:
                    assert answer.status_code in (202, 422), answer.text

    with running(server, tmp_path, projector=True) as api:
        writers = [threading.Thread(target=write, args=(api.url, tenant)) for tenant in (DELETED, DELETED, STAYS)]
        for writer in writers:
            writer.start()
        try:
            wait_until(lambda: answers.count(202) > 100, "much was accepted")
            done = command(server, tmp_path, "delete", DELETED, "--yes")
            refused_from = len(answers) + 10
            wait_until(lambda: len(answers) > refused_from + 100, "much was refused")
        finally:
            stop.set()
            for writer in writers:
                writer.join()
        assert done.returncode == 0, done.stderr
        assert set(answers[refused_from:]) <= {410}
        time.sleep(0.3)
        with SqliteStore(str(tmp_path / "penstock.db"), cache_mib=8) as store:
            wait_until(
                lambda: httpx.get(f"{api.url}/api/events?limit=1", headers={"X-Tenant-ID": STAYS}).json()["events"], "rows"
            )
            assert [content for content in (*everything_in(server), *everything_of(store)) if DELETED.encode() in content] == []
        assert httpx.get(f"{api.url}/api/events", headers={"X-Tenant-ID": DELETED}).json()["events"] == []
        assert "Traceback" not in api.said


async def test_a_deletion_that_was_killed_can_be_repeated(server: Server, log: Log, tmp_path: Path) -> None:
    with SqliteStore(str(tmp_path / "penstock.db"), cache_mib=8) as store:
        worker = Worker(log, store, lease_owner="test:1", lease_seconds=0.5)
        for tenant in (DELETED, STAYS):
            await fill(server, log, store, worker, tenant)

        assert command(server, tmp_path, "delete", DELETED, "--yes", FAILPOINT="during_deletion").returncode == 137
        await worker.run_to_end()
        assert (await log.append(STAYS, [event(n=1)]))[0].status in ("accepted", "conflict")
        assert command(server, tmp_path, "delete", DELETED, "--yes").returncode == 0

        assert [content for content in (*everything_in(server), *everything_of(store)) if DELETED.encode() in content] == []


async def test_the_command_reports_what_it_removed_and_asks_first(server: Server, log: Log, tmp_path: Path) -> None:
    with SqliteStore(str(tmp_path / "penstock.db"), cache_mib=8) as store:
        await log.append(DELETED, events(7))
        await Worker(log, store, lease_owner="test:1").run_to_end()

    unsure = command(server, tmp_path, "delete", DELETED)
    still = await log.last_position(DELETED)
    sure = command(server, tmp_path, "delete", DELETED, "--yes")

    assert unsure.returncode == 1 and still == 7
    assert "7 records of the log" in sure.stdout and "7 rows of events" in sure.stdout
    assert command(server, tmp_path, "delete", "../x", "--yes").returncode == 1


async def test_a_running_rebuild_is_not_disturbed(server: Server, log: Log, tmp_path: Path) -> None:
    await log.append(DELETED, events(7))
    with SqliteStore(str(tmp_path / "penstock.db"), cache_mib=8) as store, store.rebuilding():
        done = command(server, tmp_path, "delete", DELETED, "--yes")

    assert done.returncode == 1 and "rebuild" in done.stderr
    assert await log.last_position(DELETED) == 7


# -- afterwards --------------------------------------------------------------------------------------------------------


async def test_nothing_is_accepted_or_counted_for_a_deleted_tenant(server: Server, log: Log) -> None:
    await log.append(DELETED, events(2))
    await delete_log(log.connection, DELETED)
    before = sorted(server.client.keys())

    for sent, rejected in ((events(1), 0), ([], 3), (events(600), 1)):
        with pytest.raises(TenantDeleted):
            await log.append(DELETED, sent, rejected=rejected)

    assert sorted(server.client.keys()) == before
    assert await log.summaries() == []


async def test_a_projector_that_holds_records_of_a_deleted_tenant_writes_none(
    log: Log, store: SqliteStore, worker: Worker
) -> None:
    await log.append(DELETED, events(5))
    records = [record async for page in log.read(DELETED, 0) for record in page]
    await delete_log(log.connection, DELETED)
    store.delete_tenant(DELETED)

    assert store.apply([project(DELETED, 0, records, 5)]) == [False]
    assert await worker.run_to_end() == 0
    assert [content for content in everything_of(store) if DELETED.encode() in content] == []


async def test_a_lease_taken_before_the_deletion_leaves_no_key(
    server: Server, log: Log, store: SqliteStore, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await worker.sweep()
    await log.append(DELETED, events(5))
    server.client.xgroup_destroy(keys_of(DELETED).log, f"projector:{store.tables_id}")
    read = worker._consumer.read

    async def erased_before(*wanted: Any) -> Any:
        await delete_log(log.connection, DELETED)
        store.delete_tenant(DELETED)
        return await read(*wanted)

    monkeypatch.setattr(worker._consumer, "read", erased_before)
    with contextlib.suppress(Exception):
        await worker.run_once()

    assert [content for content in (*everything_in(server), *everything_of(store)) if DELETED.encode() in content] == []


async def test_a_log_restored_after_the_deletion_stays_out_of_the_tables_and_is_reported(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await log.append(DELETED, events(5))
    store.delete_tenant(DELETED)

    await log.append(STAYS, events(2))
    assert await worker.run_to_end() == 2
    [left] = [tenant for tenant in await status(log, store) if tenant.tenant == DELETED]
    await rebuild(log, store)

    assert "was deleted" in str(left.stuck)
    assert set(store.tables().checkpoints()) == {STAYS}


async def test_a_tenant_that_is_created_again_starts_at_position_1(server: Server, log: Log, tmp_path: Path) -> None:
    with SqliteStore(str(tmp_path / "penstock.db"), cache_mib=8) as store:
        worker = Worker(log, store, lease_owner="test:1", lease_seconds=0.5)
        await log.append(DELETED, events(5))
        await worker.run_to_end()
        assert command(server, tmp_path, "create", DELETED).returncode == 1
        command(server, tmp_path, "delete", DELETED, "--yes")

        created = command(server, tmp_path, "create", DELETED)
        [receipt] = await log.append(DELETED, events(1))
        await worker.run_to_end()

        assert created.returncode == 0, created.stderr
        assert (receipt.status, receipt.position) == ("accepted", 1)
        assert store.tables().checkpoint(DELETED).position == 1
