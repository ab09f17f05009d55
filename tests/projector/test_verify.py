"""Verify compares all tables or a part, and shows its progress."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from projector.commands.cli import moment_us
from projector.divergence import TenantUnknown
from projector.live.worker import Worker
from projector.rebuild import batches
from projector.rebuild.verify import Since, verify
from projector.store.sqlite import SqliteStore
from streams import Log, keys_of
from tests.support.commands import command
from tests.support.events import event, events
from tests.support.http import environment
from tests.support.logs import filled
from tests.support.servers import Server

pytestmark = pytest.mark.anyio

NOON_US = moment_us("2026-11-20T12:00Z")


async def differences(log: Log, store: SqliteStore, tenants: tuple[str, ...] = (), since: Since = Since()) -> list[str]:  # noqa: B008
    return [difference async for difference in verify(log, store, tenants=tenants, since=since)]


async def fill_and_damage(server: Server, log: Log, store: SqliteStore, worker: Worker) -> None:
    """Two tenants with 31 records; rows 5 and 25 and a session are wrong.

    The first 30 records were received a minute apart, from noon on.
    """
    for tenant in ("acme", "beta"):
        for i, sent in enumerate(events(30)):
            fields = {"event": sent.body, "received_at_us": NOON_US + i * 60_000_000, "version": 1}
            server.client.xadd(keys_of(tenant).log, fields, id=f"{i + 1}-0")
        await log.append(tenant, [event(session_id="last")])
    await worker.run_to_end()
    with store.transaction():
        store.execute("UPDATE events SET properties = '{}' WHERE position IN (5, 25)")
        store.execute("UPDATE event_sessions SET event_count = 77 WHERE session_id = 'last'")


async def test_only_the_named_tenants_are_compared(server: Server, log: Log, store: SqliteStore, worker: Worker) -> None:
    await fill_and_damage(server, log, store, worker)

    assert {difference.split(":")[0] for difference in await differences(log, store, ("acme",))} == {
        "events of acme",
        "event_sessions of acme",
    }
    assert len(await differences(log, store, ("acme", "beta"))) == len(await differences(log, store)) == 6
    with pytest.raises(TenantUnknown, match="unknown"):
        await differences(log, store, ("acme", "unknown"))
    assert "neither the log nor the tables know" in command(server, store, "verify", "--tenant", "unknown").stderr


@pytest.mark.parametrize(
    ("since", "positions"),
    [
        (Since(), [5, 25]),
        (Since(5), [5, 25]),
        (Since(6), [25]),
        (Since(26), []),
        (Since(99), []),
        (Since(received_at_us=NOON_US), [5, 25]),
        (Since(received_at_us=NOON_US + 24 * 60_000_000), [25]),
        (Since(received_at_us=NOON_US + 24 * 60_000_000 + 1), []),
        (Since(received_at_us=2**62), []),
    ],
)
async def test_a_comparison_may_begin_at_a_position_or_a_time(
    server: Server, log: Log, store: SqliteStore, worker: Worker, since: Since, positions: list[int]
) -> None:
    await fill_and_damage(server, log, store, worker)

    found_differences = await differences(log, store, ("acme",), since)

    assert [int(difference.split()[4]) for difference in found_differences if difference.startswith("events")] == positions
    session_is_touched = since.position <= 31 and since.received_at_us != 2**62
    assert [difference for difference in found_differences if "sessions" in difference] == [
        "event_sessions of acme: first_position 31 differs: event_count is 77, the log says 1"
    ] * session_is_touched


async def test_a_session_is_compared_when_log_or_tables_have_an_event_of_it_in_the_range(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await filled(log, worker)
    with store.transaction():
        store.execute("DELETE FROM events WHERE tenant_id = 'acme' AND position >= 40 AND session_id = 'S1'")

    found_differences = await differences(log, store, ("acme",), Since(40))

    assert [difference for difference in found_differences if "sessions" in difference] == []  # the session is in both, and equal
    assert [difference.split(": ")[1] for difference in found_differences if difference.startswith("events")] == [
        f"position {position} is in the log, not in the tables" for position in (41, 44, 47, 50, 51)
    ]


async def test_the_command_takes_tenant_and_since(server: Server, log: Log, store: SqliteStore, worker: Worker) -> None:
    await fill_and_damage(server, log, store, worker)

    by_time = command(server, store, "verify", "--tenant", "beta", "--since", "2026-11-20T14:15+02:00")
    by_position = command(server, store, "verify", "--tenant", "beta", "--since", "26")
    refused = [command(server, store, "verify", "--since", since) for since in ("yesterday", "2026-11-20T12:00", "-1")]

    assert by_time.returncode == 1 and "position 25 differs" in by_time.stdout and "position 5 " not in by_time.stdout
    assert by_position.stdout.splitlines() == [
        "event_sessions of beta: first_position 31 differs: event_count is 77, the log says 1", "1 differences"
    ]  # fmt: skip
    assert [process.returncode for process in refused] == [2, 2, 2]
    assert "is no time with an offset, such as 2026-11-20T12:00Z" in refused[0].stderr


async def test_progress_is_shown_and_ends_at_the_total(
    log: Log, store: SqliteStore, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "CHUNK_RECORDS", 20)
    monkeypatch.setattr(batches, "BATCH_RECORDS", 10)
    await filled(log, worker)
    shown: dict[str, list[tuple[int, int]]] = {"replaying": [], "comparing": []}

    def show(stage: str) -> Callable[[int, int], None]:
        return lambda done, total: shown[stage].append((done, total))

    async for _ in verify(log, store, replaying=show("replaying"), comparing=show("comparing")):
        pass

    assert {name: steps[-1] for name, steps in shown.items()} == {"replaying": (110, 110), "comparing": (110, 110)}
    assert all(steps == sorted(steps) for steps in shown.values()) and len(shown["comparing"]) == 2
    printed = subprocess.run(
        [sys.executable, "-m", "projector", "verify"], cwd=Path(store.path).parent, capture_output=True, text=True,
        env=environment(REDIS_URL=log.connection.url, DATABASE_URL=f"sqlite:///{store.path}"), timeout=60,
    )  # fmt: skip
    assert printed.stdout == "the tables are what the log says\n"
    assert "replaying: 110 of 110 records" in printed.stderr and "comparing: 110 of 110 records" in printed.stderr
