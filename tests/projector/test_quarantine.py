"""Records in quarantine are listed, shown, retried and dropped.

A drop happens once, whichever process dies during it.
"""

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest

from projector.catch_up import catch_up
from projector.commands.quarantine import printable
from projector.live.worker import Worker
from projector.quarantine import drop, forecasts
from projector.rebuild.rebuild import rebuild
from projector.rebuild.verify import verify
from projector.status import status
from projector.store import PREVIOUS, Selection
from projector.store.sqlite import SqliteStore
from projector.store.sqlite.quarantine import PAGE_ROWS
from streams import Log, control, keys_of
from tests.support.commands import command
from tests.support.events import event, events
from tests.support.http import process_of
from tests.support.logs import spoiled
from tests.support.proxy import until
from tests.support.servers import Server
from tests.support.tables import dump, quarantined

pytestmark = pytest.mark.anyio


def quarantine(server: Server, store: SqliteStore, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a quarantine command to its end."""
    process: Any = command(server, store, "quarantine", *words, **environment)
    return process  # type: ignore[no-any-return]


async def assert_all_tables_agree(log: Log, store: SqliteStore) -> None:
    """Assert that live, verified and rebuilt tables are the same."""
    before = dump(store)
    assert [difference async for difference in verify(log, store)] == []
    await rebuild(log, store)
    assert dump(store) == before


# -- list and show -----------------------------------------------------------------------------------------------------


async def test_the_list_names_records_in_quarantine_up_to_a_limit(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    for tenant in ("acme", "beta"):
        await spoiled(server, log, tenant)
    await worker.run_to_end()

    everything, first_three = quarantine(server, store, "list"), quarantine(server, store, "list", "beta", "--limit", "3")
    conflicts = quarantine(server, store, "list", "--reason", "conflict")

    fields = [line.split("\t") for line in everything.stdout.splitlines()]
    assert [(tenant, int(position), reason, int(size)) for tenant, position, _, reason, size, _ in fields] == [
        (tenant, position, reason, size)
        for tenant in ("acme", "beta")
        for position, reason, size in (
            (6, "invalid", 10),
            (7, "invalid", 10),
            (8, "invalid", 10),
            (9, "conflict", len(event(event_id="a", n=2).body)),
        )
    ]
    assert fields[0][2] == "1970-01-01T00:00:00.000007Z"
    assert "is not a stored event" in fields[0][5]
    assert [line.split("\t")[:2] for line in first_three.stdout.splitlines()] == [["beta", "6"], ["beta", "7"], ["beta", "8"]]
    assert first_three.stderr == "and 1 more: --limit 4\n"
    assert [line.split("\t")[:2] for line in conflicts.stdout.splitlines()] == [["acme", "9"], ["beta", "9"]]


async def test_the_list_reads_all_pages_in_order(server: Server, log: Log, store: SqliteStore, worker: Worker) -> None:
    await spoiled(server, log, bad=450)
    await worker.run_to_end()

    assert [entry.position for entry in store.quarantine.entries(Selection("acme"))] == list(range(6, 457))
    assert store.quarantine.count(Selection("acme", reason="invalid", through=105)) == 100


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"n": "caf\xc3\xa9"}', '{"n": "café"}'),
        (b"\x1b[2Jgone", "1b 5b 32 4a 67 6f 6e 65"),
        (b"\xff\x00", "ff 00"),
        ("a\u202eb".encode(), "61 e2 80 ae 62"),
        (b"two\nlines", "two\nlines"),
    ],
)
async def test_a_record_is_shown_as_text_or_in_hexadecimal(
    server: Server, log: Log, store: SqliteStore, worker: Worker, body: bytes, shown: str
) -> None:
    await log.append("acme", events(1))
    server.client.xadd(keys_of("acme").log, {"event": body, "received_at_us": 1, "version": 1}, id="2-0")
    await worker.run_to_end()

    output = quarantine(server, store, "show", "acme", "2")

    assert output.returncode == 0
    assert output.stdout.endswith(f"\n\n{shown}\n")
    assert "reason:   invalid" in output.stdout and f"bytes:    {len(body)}" in output.stdout
    assert "\x1b" not in output.stdout
    not_in_quarantine = quarantine(server, store, "show", "acme", "1")
    assert (not_in_quarantine.returncode, not_in_quarantine.stderr) == (1, "position 1 of acme is not in quarantine.\n")


def test_control_characters_are_printed_as_escapes() -> None:
    assert printable("a\x1b[31mb\tc\u202ed") == "a\\x1b[31mb\\tc\\u202ed"


# -- drop --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("projector_runs", [False, True], ids=["no projector", "a running projector"])
async def test_a_drop_is_carried_out_with_a_running_projector_or_without(
    server: Server, log: Log, store: SqliteStore, worker: Worker, tmp_path: Path, projector_runs: bool
) -> None:
    await spoiled(server, log)
    await worker.run_to_end()
    settings = {"REDIS_URL": server.url, "DATABASE_URL": f"sqlite:///{store.path}"}
    if projector_runs:
        with process_of(("-m", "projector", "run"), tmp_path, "projector.log", **settings):
            await until(lambda: " applies " in (tmp_path / "projector.log").read_text())
            dropped = await asyncio.to_thread(
                quarantine, server, store, "drop", "acme", "--position", "7", "--position", "9", "--yes"
            )
    else:
        dropped = quarantine(server, store, "drop", "acme", "--position", "7", "--position", "9", "--yes")

    assert dropped.returncode == 0, dropped.stderr
    assert dropped.stdout.splitlines()[-1] == "2 dropped; the log says so at position 10."
    assert "  acme 9: conflict, the event of that name is at position 5" in dropped.stdout
    assert quarantined(store) == [6, 8]
    [acme] = await status(log, store)
    assert (acme.dropped, acme.lag_records, acme.rows) == (3, 0, 5)
    await assert_all_tables_agree(log, store)


async def test_records_are_dropped_by_reason_or_all_together(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    for tenant in ("acme", "beta"):
        await spoiled(server, log, tenant, bad=510)
    await worker.run_to_end()

    invalid = quarantine(server, store, "drop", "acme", "--reason", "invalid", "--yes")
    everything = quarantine(server, store, "drop", "acme", "--yes")

    assert "510 dropped" in invalid.stdout and "1 dropped" in everything.stdout
    assert {row[0] for row in dump(store)["quarantine"]} == {"beta"}
    [acme, beta] = await status(log, store)
    assert (acme.quarantined, acme.dropped, beta.quarantined, beta.dropped) == (0, 511 + 4, 511, 0)
    assert max(len(page[-1].body) for page in [page async for page in log.read("acme", 516)]) < 4_000
    await assert_all_tables_agree(log, store)


async def test_a_second_drop_of_a_record_changes_nothing(server: Server, log: Log, store: SqliteStore, worker: Worker) -> None:
    await spoiled(server, log)
    await worker.run_to_end()

    first = quarantine(server, store, "drop", "acme", "--position", "7", "--yes")
    second = quarantine(server, store, "drop", "acme", "--position", "7", "--yes")
    valid_row = quarantine(server, store, "drop", "acme", "--position", "1", "--yes")

    assert "1 dropped" in first.stdout
    assert [(command.returncode, "nothing to drop" in command.stdout) for command in (second, valid_row)] == [
        (0, True),
        (0, True),
    ]
    assert await log.last_position("acme") == 10
    assert quarantined(store) == [6, 8, 9]


async def test_a_record_that_is_dropped_twice_at_once_counts_once(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await spoiled(server, log)
    await worker.run_to_end()

    await drop(log, store, Selection("acme", [7]))
    await log.append("acme", [event(session_id="between")])
    await drop(log, store, Selection("acme", [7]))
    await worker.run_to_end()

    assert quarantined(store) == [6, 8, 9]
    assert dump(store)["checkpoints"][0][4] == 1 + 2
    await assert_all_tables_agree(log, store)


async def test_a_drop_that_was_killed_before_it_was_applied_is_finished_without_a_second_control_record(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await spoiled(server, log)
    await worker.run_to_end()

    killed = quarantine(server, store, "drop", "acme", "--yes", FAILPOINT="between_control_record_and_apply")
    assert (killed.returncode, quarantined(store), await log.last_position("acme")) == (137, [6, 7, 8, 9], 10)
    again = quarantine(server, store, "drop", "acme", "--yes")

    assert (again.returncode, "nothing to drop" in again.stdout) == (0, True)
    assert quarantined(store) == []
    assert await log.last_position("acme") == 10
    await assert_all_tables_agree(log, store)


async def test_a_drop_that_was_killed_between_two_control_records_is_finished_by_the_next(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await spoiled(server, log, bad=PAGE_ROWS + 10)
    await worker.run_to_end()

    assert quarantine(server, store, "drop", "acme", "--yes", FAILPOINT="between_control_record_and_apply").returncode == 137
    again = quarantine(server, store, "drop", "acme", "--yes")

    assert "11 dropped" in again.stdout and quarantined(store) == []
    [acme] = await status(log, store)
    assert (acme.dropped, acme.quarantined) == (PAGE_ROWS + 11 + 2, 0)
    await assert_all_tables_agree(log, store)


async def test_nothing_is_dropped_without_confirmation(server: Server, log: Log, store: SqliteStore, worker: Worker) -> None:
    await spoiled(server, log)
    await worker.run_to_end()

    unconfirmed = quarantine(server, store, "drop", "acme")

    assert unconfirmed.returncode == 1 and "Drop 4 records of acme?" in unconfirmed.stdout
    assert (quarantined(store), await log.last_position("acme")) == ([6, 7, 8, 9], 9)


async def test_a_record_that_enters_quarantine_after_the_question_is_kept(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await spoiled(server, log)
    await worker.run_to_end()
    server.client.xadd(keys_of("acme").log, {"event": "later", "received_at_us": 7, "version": 1}, id="10-0")
    await worker.run_to_end()

    await drop(log, store, Selection("acme", through=9))
    await worker.run_to_end()

    assert quarantined(store) == [10]


async def test_a_drop_on_a_lost_log_or_a_bad_tenant_fails_with_a_sentence(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await spoiled(server, log)
    await worker.run_to_end()
    server.client.flushall()

    lost_log = quarantine(server, store, "drop", "acme", "--yes")
    unknown_tenant = quarantine(server, store, "drop", "unknown", "--yes")

    assert lost_log.returncode == 1 and "the log of acme ends at position 0" in lost_log.stderr
    assert (unknown_tenant.returncode, "nothing to drop" in unknown_tenant.stdout) == (0, True)
    assert quarantined(store) == [6, 7, 8, 9]
    assert "A tenant's name" in quarantine(server, store, "drop", "no/body", "--yes").stderr


async def test_tables_that_lag_catch_up_first(server: Server, log: Log, store: SqliteStore) -> None:
    await spoiled(server, log)

    assert await catch_up(log, store, "acme", seconds=60)

    assert quarantined(store) == [6, 7, 8, 9]
    await control.append(log.connection, "acme", control.Drop([6]))
    assert not await catch_up(log, store, "acme", seconds=0)
    assert await catch_up(log, store, "acme", seconds=60)
    assert quarantined(store) == [7, 8, 9]


# -- retry -------------------------------------------------------------------------------------------------------------


async def test_a_lost_record_that_is_back_becomes_a_row(server: Server, log: Log, store: SqliteStore, worker: Worker) -> None:
    await spoiled(server, log)
    key = keys_of("acme").log
    entries_of_log = server.client.xrange(key)
    server.client.xdel(key, "2-0", "5-0")
    await worker.run_to_end()
    assert [(row[1], row[4]) for row in dump(store)["quarantine"]] == [
        (2, "lost"), (5, "lost"), (6, "invalid"), (7, "invalid"), (8, "invalid")
    ]  # fmt: skip
    server.client.delete(key)
    for entry_id, fields in entries_of_log:
        server.client.xadd(key, fields, id=entry_id)

    unconfirmed = quarantine(server, store, "retry")
    retried = quarantine(server, store, "retry", "acme", "--yes")

    assert unconfirmed.returncode == 1 and "5 in quarantine: 3 invalid, 2 would become rows now" in unconfirmed.stdout
    assert "  acme 2: row, page_view of session S1 at 2026-01-01T00:00:01Z" in unconfirmed.stdout
    assert retried.returncode == 0, retried.stderr
    assert retried.stdout.splitlines()[-1] == "acme: 2 rows, 0 late duplicates or control records, 0 in quarantine"
    assert quarantined(store) == [6, 7, 8, 9]  # the later event with that identity is the conflict now
    await assert_all_tables_agree(log, store)


async def test_a_retry_that_would_add_no_row_does_not_rebuild(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await spoiled(server, log)
    await worker.run_to_end()

    retried = quarantine(server, store, "retry")

    assert retried.returncode == 0
    assert "4 in quarantine: 3 invalid, 1 conflicts" in retried.stdout and "nothing was changed" in retried.stdout
    assert not store.has_set(PREVIOUS) and quarantined(store) == [6, 7, 8, 9]


async def test_the_forecast_of_a_retry_comes_true(server: Server, log: Log, store: SqliteStore, worker: Worker) -> None:
    """One record that a constraint refused, one of an unknown version."""
    await log.append("acme", [event(session_id="bad", event_id="e1"), event(session_id="good", event_id="e2")])
    with store.transaction():
        store.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON events WHEN new.session_id = 'bad' BEGIN SELECT raise(ABORT, 'not this'); END"
        )
    server.client.xadd(keys_of("acme").log, {"event": event(n=3).body, "received_at_us": 1, "version": 9}, id="3-0")
    await worker.run_to_end()
    with store.transaction():
        store.execute("DROP TRIGGER refuse")

    outcomes = {forecast.position: forecast.outcome async for forecast in forecasts(log, store, Selection())}
    still_invalid = quarantine(server, store, "retry", "acme", "--position", "3", "--yes")
    retried = quarantine(server, store, "retry", "--yes")

    assert outcomes == {1: "row", 3: "invalid"}
    assert "nothing was changed" in still_invalid.stdout
    assert retried.stdout.splitlines()[-1] == "acme: 1 rows, 0 late duplicates or control records, 0 in quarantine"
    assert quarantined(store) == [3]


async def test_a_retry_on_tables_of_an_older_version_names_the_rebuild(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await log.append("acme", events(1))
    server.client.xdel(keys_of("acme").log, "1-0")
    await log.append("acme", events(2))
    await worker.run_to_end()
    with store.transaction():
        store.execute("UPDATE table_sets SET projection_version = 1")
        store.execute("UPDATE quarantine SET position = 1, reason = 'invalid', body = ?", (event().body,))

    refused = quarantine(server, store, "retry", "--yes")

    assert refused.returncode == 1 and "run `penstock projector rebuild`" in refused.stderr
