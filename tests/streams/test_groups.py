"""Who reads the logs is listed with how far it is, and a group that nobody uses any more holds back the archive no longer."""

import subprocess
import sys
from pathlib import Path

import pytest

from projector.live.worker import Worker
from projector.store.sqlite import SqliteStore
from streams import Log, keys_of
from streams.groups import Group, groups
from tests.support.events import events
from tests.support.http import environment, process_of, wait_until
from tests.support.servers import Server

pytestmark = pytest.mark.anyio
one_server = pytest.mark.parametrize("shared_server", ["valkey"], indirect=True)  # to wait for life takes ten seconds


def command(server: Server, folder: Path, *arguments: str, status: int = 0) -> str:
    """python -m streams, to its end."""
    given = environment(REDIS_URL=server.url, DATA_DIR=folder, HOT_SECONDS=0)
    run = [sys.executable, "-m", "streams", *arguments]
    done = subprocess.run(run, cwd=folder, env=given, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done
    return done.stdout + done.stderr


async def test_groups_are_listed_with_their_lag(
    server: Server, log: Log, store: SqliteStore, worker: Worker, tmp_path: Path
) -> None:
    group = f"projector:{store.tables_id}"
    await worker.sweep()
    for tenant in ("acme", "globex"):
        await log.append(tenant, events(30))
    server.client.xreadgroup(group, "projector", {keys_of("acme").log: ">"}, count=10)
    pending = await groups(log)
    await worker.run_to_end()
    server.client.sadd(keys_of("acme").groups, "projector:registered")
    server.client.xgroup_create(keys_of("globex").log, "projector:gone", "20-0")

    assert pending == [Group(group, 60, 2)]
    assert await groups(log) == sorted(
        [Group(group, 0, 0), Group("projector:gone", 10, 1), Group("projector:registered", 30, 1)], key=lambda one: one.name
    )
    assert "projector:gone: lag of 10 records, in 1 logs\n" in command(server, tmp_path, "group", "list")


@one_server
async def test_an_unused_group_is_destroyed_and_the_archive_goes_on(
    server: Server, log: Log, store: SqliteStore, worker: Worker, tmp_path: Path
) -> None:
    await log.append("acme", events(30))
    await worker.run_to_end()
    with SqliteStore(str(tmp_path / "gone.db"), cache_mib=8) as tombstones:
        await Worker(log, tombstones, lease_owner="test:2", lease_seconds=0.5).sweep()
        name = f"projector:{tombstones.tables_id}"
    assert "archived 0 records" in command(server, tmp_path, "archive", "--once")

    said = command(server, tmp_path, "group", "destroy", name, "--yes")

    assert said == f"destroyed: {name}, in 0 logs\n"
    assert [one.name for one in await groups(log)] == [f"projector:{store.tables_id}"]
    assert not [key for key in server.client.scan_iter() if name.encode() in key]
    assert "archived 29 records" in command(server, tmp_path, "archive", "--once")


@one_server
async def test_a_group_that_a_projector_uses_is_not_destroyed(server: Server, log: Log, tmp_path: Path) -> None:
    await log.append("acme", events(3))
    with process_of(("-m", "projector", "run"), tmp_path, "projector.out", REDIS_URL=server.url, DATA_DIR=tmp_path):
        wait_until(lambda: server.client.xinfo_groups(keys_of("acme").log), "the projector reads")
        [name] = server.client.smembers(keys_of("acme").groups)

        said = command(server, tmp_path, "group", "destroy", name.decode(), "--yes", status=1)

        assert said == f"a projector uses the group {name.decode()}: stop it first.\n"
        [kept] = server.client.xinfo_groups(keys_of("acme").log)
        assert kept["name"] == name
