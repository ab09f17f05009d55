"""Consumer groups are listed with their lag and destroyed when unused."""

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
one_server = pytest.mark.parametrize("shared_server", ["valkey"], indirect=True)  # each of these tests takes ten seconds


def command(server: Server, folder: Path, *arguments: str, status: int = 0) -> str:
    """Run a command of streams; return its output."""
    variables = environment(REDIS_URL=server.url, DATA_DIR=folder, HOT_SECONDS=0)
    words = [sys.executable, "-m", "streams", *arguments]
    process = subprocess.run(words, cwd=folder, env=variables, capture_output=True, text=True, timeout=60)
    assert process.returncode == status, process
    return process.stdout + process.stderr


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
    server.client.xgroup_create(keys_of("globex").log, "projector:unused", "20-0")

    assert pending == [Group(group, 60, 2)]
    assert await groups(log) == sorted(
        [Group(group, 0, 0), Group("projector:unused", 10, 1), Group("projector:registered", 30, 1)], key=lambda entry: entry.name
    )
    assert "projector:unused: lag of 10 records, in 1 logs\n" in command(server, tmp_path, "group", "list")


@one_server
async def test_an_unused_group_is_destroyed_and_archiving_continues(
    server: Server, log: Log, store: SqliteStore, worker: Worker, tmp_path: Path
) -> None:
    await log.append("acme", events(30))
    await worker.run_to_end()
    with SqliteStore(str(tmp_path / "unused.db"), cache_mib=8) as unused_store:
        await Worker(log, unused_store, lease_owner="test:2", lease_seconds=0.5).sweep()
        name = f"projector:{unused_store.tables_id}"
    assert "archived 0 records" in command(server, tmp_path, "archive", "--once")

    output = command(server, tmp_path, "group", "destroy", name, "--yes")

    assert output == f"destroyed: {name}, in 0 logs\n"
    assert [entry.name for entry in await groups(log)] == [f"projector:{store.tables_id}"]
    assert not [key for key in server.client.scan_iter() if name.encode() in key]
    assert "archived 29 records" in command(server, tmp_path, "archive", "--once")


@one_server
async def test_a_group_that_a_projector_uses_is_not_destroyed(server: Server, log: Log, tmp_path: Path) -> None:
    await log.append("acme", events(3))
    with process_of(("-m", "projector", "run"), tmp_path, "projector.out", REDIS_URL=server.url, DATA_DIR=tmp_path):
        wait_until(lambda: server.client.xinfo_groups(keys_of("acme").log), "the projector reads")
        [name] = server.client.smembers(keys_of("acme").groups)

        output = command(server, tmp_path, "group", "destroy", name.decode(), "--yes", status=1)

        assert output == f"a projector uses the group {name.decode()}: stop it first.\n"
        [entry] = server.client.xinfo_groups(keys_of("acme").log)
        assert entry["name"] == name
