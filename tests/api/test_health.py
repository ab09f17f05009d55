"""Readiness reports everything that would lose or refuse events."""

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from api.health import parse_info, unsafe
from tests.support.http import App, opened
from tests.support.servers import BINARIES, Server

pytestmark = pytest.mark.anyio

QUICK = {"APPEND_TIMEOUT_SECONDS": 0.3}


async def failures(app: App) -> dict[str, str]:
    """The failures that GET /readyz reports: details by code."""
    answer = await app.client.get("/readyz")
    body = answer.json()
    reported = {failure["code"]: failure["detail"] for failure in body["failures"]}
    assert answer.status_code == (503 if reported else 200)
    assert body["status"] == ("not ready" if reported else "ready")
    return reported


@pytest.fixture
async def app(own_server: Server, tmp_path: Path) -> AsyncIterator[App]:
    async with opened(own_server, tmp_path / "data", **QUICK) as app:
        yield app


async def ready_with(server: Server, folder: Path, **settings: Any) -> dict[str, str]:
    """The failures that are reported with these settings."""
    async with opened(server, folder, **QUICK, **settings) as app:
        return await failures(app)


async def test_a_process_is_healthy_without_its_server(own_server: Server, app: App) -> None:
    own_server.kill()

    answer = await app.client.get("/healthz")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_a_durable_server_is_ready(app: App) -> None:
    assert await failures(app) == {}


async def test_a_missing_server_is_reported_until_it_is_back(own_server: Server, app: App) -> None:
    own_server.kill()
    tombstones = await failures(app)
    own_server.start()

    assert list(tombstones) == ["server-unreachable"]
    assert tombstones["server-unreachable"]
    assert await failures(app) == {}


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
async def test_a_server_that_evicts_is_reported_until_it_stops(own_server: Server, tmp_path: Path, policy: str) -> None:
    own_server.client.config_set("maxmemory-policy", policy)
    async with opened(own_server, tmp_path / "data", DURABILITY="none") as app:
        reported = await failures(app)
        own_server.client.config_set("maxmemory-policy", "noeviction")

        assert list(reported) == ["server-evicts"]
        assert policy in reported["server-evicts"]
        assert "noeviction" in reported["server-evicts"]
        assert await failures(app) == {}


async def test_a_server_without_an_append_only_file_is_reported_unless_permitted(own_server: Server, tmp_path: Path) -> None:
    own_server.client.config_set("appendonly", "no")

    reported = {
        durability: await ready_with(own_server, tmp_path, DURABILITY=durability) for durability in ("always", "everysec", "none")
    }

    assert {durability: list(failures_then) for durability, failures_then in reported.items()} == {
        "always": ["server-not-durable"],
        "everysec": ["server-not-durable"],
        "none": [],
    }
    assert "appendonly" in reported["always"]["server-not-durable"]


@pytest.mark.parametrize(
    ("fsync", "accepted"),
    [("always", {"always", "everysec", "none"}), ("everysec", {"everysec", "none"}), ("no", {"none"})],
)
async def test_a_server_that_syncs_less_than_durability_asks_is_reported(
    own_server: Server, tmp_path: Path, fsync: str, accepted: set[str]
) -> None:
    own_server.client.config_set("appendfsync", fsync)

    reported = {
        durability: await ready_with(own_server, tmp_path, DURABILITY=durability) for durability in ("always", "everysec", "none")
    }

    assert {durability for durability, failures_then in reported.items() if not failures_then} == accepted
    for failures_then in reported.values():
        assert not failures_then or (
            list(failures_then) == ["server-not-durable"] and repr(fsync) in failures_then["server-not-durable"]
        )


async def test_a_replica_is_reported(own_server: Server, app: App) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        own_server.client.replicaof("127.0.0.1", nobody.getsockname()[1])

        assert list(await failures(app)) == ["server-read-only"]


async def test_a_server_whose_memory_is_full_is_reported(own_server: Server, app: App) -> None:
    own_server.client.config_set("maxmemory", "100kb")

    reported = await failures(app)

    assert list(reported) == ["server-memory-full"]
    assert "102400" in reported["server-memory-full"]


async def test_a_server_with_less_memory_than_a_request_needs_is_not_ready(own_server: Server, app: App) -> None:
    used = own_server.client.info("memory")["used_memory"]
    own_server.client.config_set("maxmemory", used + 1_000_000)
    assert list(await failures(app)) == ["server-memory-full"]

    own_server.client.config_set("maxmemory", used + 20_000_000)
    assert await failures(app) == {}


@pytest.mark.parametrize("name", sorted(BINARIES))
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], []),
        (["--maxmemory-policy", "allkeys-lru"], ["server-evicts"]),
        (["--appendonly", "no"], ["server-not-durable"]),
    ],
    ids=["safe", "evicting", "no append-only file"],
)
async def test_where_config_is_forbidden_info_is_used(tmp_path: Path, name: str, options: list[str], expected: list[str]) -> None:
    server = Server(name, tmp_path / "server", "--rename-command", "CONFIG", "", *options).start()
    try:
        assert list(await ready_with(server, tmp_path / "data")) == expected
    finally:
        server.stop()


async def test_too_little_free_disk_is_reported_with_both_figures(own_server: Server, tmp_path: Path) -> None:
    floor = 10**18

    reported = await ready_with(own_server, tmp_path, MIN_FREE_DISK_BYTES=floor)

    assert list(reported) == ["disk-low"]
    assert str(floor) in reported["disk-low"]


@pytest.mark.parametrize("looked_before", [False, True], ids=["at the first look", "after it was seen"])
async def test_a_missing_tables_file_is_reported(app: App, looked_before: bool) -> None:
    if looked_before:
        assert await failures(app) == {}
    for path in Path(app.store.path).parent.glob("penstock.db*"):
        path.unlink()

    assert list(await failures(app)) == ["tables-unreachable"]


async def test_a_damaged_tables_file_is_reported_and_reads_fail_clearly(app: App) -> None:
    path = Path(app.store.path)
    path.write_bytes((b"not a database" * 100).ljust(path.stat().st_size, b"\0"))
    Path(f"{path}-wal").write_bytes(b"")

    reported = await failures(app)
    read = await app.get("/api/events")

    assert list(reported) == ["tables-unreachable"]
    assert reported["tables-unreachable"]
    assert (read.status_code, read.json()["code"]) == (503, "tables-unavailable")


async def test_all_failures_are_reported_together(own_server: Server, tmp_path: Path) -> None:
    own_server.client.config_set("maxmemory-policy", "allkeys-lru")
    own_server.client.config_set("appendonly", "no")

    reported = await ready_with(own_server, tmp_path, MIN_FREE_DISK_BYTES=10**18)

    assert set(reported) == {"server-evicts", "server-not-durable", "disk-low"}


async def test_readiness_needs_no_tenant(app: App) -> None:
    assert [(await app.client.get(path)).status_code for path in ("/healthz", "/readyz")] == [200, 200]


def test_an_unknown_eviction_policy_is_unsafe() -> None:
    reported = unsafe({"maxmemory-policy": "", "appendonly": "yes", "appendfsync": "always"}, "always")

    assert [failure.code for failure in reported] == ["server-evicts"]


def test_info_is_read_with_any_line_ends() -> None:
    assert parse_info(b"# Server\r\nrole:master\r\n\r\nconfig_file:/a:b\n") == {"role": "master", "config_file": "/a:b"}
