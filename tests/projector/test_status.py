"""Status shows totals, then the requested tenants."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from projector.live.worker import Worker
from projector.status import Totals, status, totals
from projector.store.sqlite import SqliteStore
from streams import Log, keys_of
from tests.support.commands import command
from tests.support.events import event, events
from tests.support.servers import Server

pytestmark = pytest.mark.anyio
one_server = pytest.mark.parametrize("shared_server", ["valkey"], indirect=True)


@pytest.fixture
async def tenants(server: Server, log: Log, store: SqliteStore, worker: Worker) -> None:
    """acme has no lag, beta a lag of 2, and gamma lost its log."""
    for tenant, count in (("acme", 12), ("beta", 5), ("gamma", 5)):
        await log.append(tenant, events(count))
    await worker.run_to_end()
    await log.append("beta", [event(event_id="x"), event(event_id="y")])
    server.client.delete(keys_of("gamma").log)


def totals_and_tenants(server: Server, store: SqliteStore, *options: str) -> tuple[str, list[str]]:
    """The line of totals, and the tenants of the first table."""
    ended = command(server, store, "status", *options)
    assert ended.returncode == 0, ended.stderr
    first, _, tables = ended.stdout.partition("\n")
    table = tables.partition("at the ingest endpoint")[0]
    return first, re.findall(r"^ ?(acme|beta|gamma) ", table, re.MULTILINE)


@one_server
@pytest.mark.usefixtures("tenants")
async def test_totals_come_first(server: Server, store: SqliteStore) -> None:
    first, names = totals_and_tenants(server, store)

    assert first == "3 tenants: 19 records, 22 rows, lag of 2 records in 1 tenants, 0 quarantined, 1 tenants stuck"
    assert names == ["acme", "beta", "gamma"]


@one_server
@pytest.mark.usefixtures("tenants")
@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--stuck"], ["gamma"]),
        (["--lagging"], ["beta"]),
        (["--stuck", "--lagging"], []),
        (["--sort", "lag"], ["beta", "acme", "gamma"]),
        (["--sort", "records"], ["acme", "beta", "gamma"]),
        (["--sort", "rows"], ["acme", "beta", "gamma"]),
        (["--tenant", "gamma", "--tenant", "acme"], ["acme", "gamma"]),
        (["--limit", "2"], ["acme", "beta"]),
        (["--sort", "lag", "--limit", "1"], ["beta"]),
    ],
    ids=" ".join,
)
async def test_tenants_are_filtered_sorted_and_limited(
    server: Server, store: SqliteStore, options: list[str], names: list[str]
) -> None:
    assert totals_and_tenants(server, store, *options)[1] == names


@one_server
@pytest.mark.usefixtures("tenants")
async def test_tenants_beyond_the_limit_are_counted_and_json_is_complete(server: Server, store: SqliteStore) -> None:
    limited = command(server, store, "status", "--limit", "1").stdout
    as_json = json.loads(command(server, store, "status", "--limit", "1", "--json").stdout)
    stuck = json.loads(command(server, store, "status", "--stuck", "--json").stdout)

    assert limited.splitlines()[-1] == "and 2 more: --limit 3"
    assert [(entry["tenant"], entry["records"], entry["rows"], entry["sessions"]) for entry in as_json] == [
        ("acme", 12, 12, 3), ("beta", 7, 5, 3), ("gamma", 0, 5, 3),
    ]  # fmt: skip
    assert [entry["tenant"] for entry in stuck] == ["gamma"] and "ends at position 0" in stuck[0]["stuck"]


@one_server
@pytest.mark.usefixtures("tenants")
async def test_totals_count_the_named_tenants_only(server: Server, store: SqliteStore) -> None:
    first, _ = totals_and_tenants(server, store, "--tenant", "beta")

    assert first == "1 tenants: 7 records, 5 rows, lag of 2 records in 1 tenants, 0 quarantined, 0 tenants stuck"


@one_server
async def test_an_unknown_tenant_is_named(server: Server, store: SqliteStore) -> None:
    ended = command(server, store, "status", "--tenant", "unknown")

    assert (ended.returncode, ended.stderr) == (1, "neither the log nor the tables know the tenant unknown.\n")


@one_server
@pytest.mark.usefixtures("tenants")
async def test_sessions_are_counted_only_on_request(log: Log, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("sessions are counted")

    monkeypatch.setattr(type(store.queries), "session_counts", refuse)

    statuses = await status(log, store, with_sessions=False)

    assert [entry.sessions for entry in statuses] == [None] * 3
    assert totals(statuses) == Totals(
        tenants=3, records=19, rows=22, lag_records=2, lagging=1, quarantined=0, stuck=1
    )  # fmt: skip


@one_server
async def test_a_tenant_that_no_projector_leases_is_stuck(log: Log, store: SqliteStore, server: Server, tmp_path: Path) -> None:
    old = {"event": "{}", "received_at_us": 1, "version": 1}
    server.client.xadd(keys_of("acme").log, old, id="1-0")
    server.client.sadd(keys_of("acme").tenants, "acme")

    [entry] = await status(log, store)

    assert entry.stuck == "no projector has its lease: is one running?"
