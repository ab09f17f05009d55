"""What is in quarantine is listed, shown, tried again and dropped; a drop is done once, whoever dies in the middle."""

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


def asked(server: Server, store: SqliteStore, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """python -m projector quarantine, to its end."""
    done: Any = command(server, store, "quarantine", *words, **environment)
    return done  # type: ignore[no-any-return]


async def agrees(log: Log, store: SqliteStore) -> None:
    """Live tables, those that verify makes and rebuilt ones are the same."""
    before = dump(store)
    assert [difference async for difference in verify(log, store)] == []
    await rebuild(log, store)
    assert dump(store) == before


# -- list and show -----------------------------------------------------------------------------------------------------


async def test_the_list_names_what_is_in_quarantine_and_no_more_than_asked_for(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    for tenant in ("acme", "beta"):
        await spoiled(server, log, tenant)
    await worker.run_to_end()

    both, one = asked(server, store, "list"), asked(server, store, "list", "beta", "--limit", "3")
    conflicts = asked(server, store, "list", "--reason", "conflict")

    fields = [line.split("\t") for line in both.stdout.splitlines()]
    assert [(tenant, int(at), reason, int(size)) for tenant, at, _, reason, size, _ in fields] == [
        (tenant, at, reason, size)
        for tenant in ("acme", "beta")
        for at, reason, size in (
            (6, "invalid", 10),
            (7, "invalid", 10),
            (8, "invalid", 10),
            (9, "conflict", len(event(event_id="a", n=2).body)),
        )
    ]
    assert fields[0][2] == "1970-01-01T00:00:00.000007Z"
    assert "is not a stored event" in fields[0][5]
    assert [line.split("\t")[:2] for line in one.stdout.splitlines()] == [["beta", "6"], ["beta", "7"], ["beta", "8"]]
    assert one.stderr == "and 1 more: --limit 4\n"
    assert [line.split("\t")[:2] for line in conflicts.stdout.splitlines()] == [["acme", "9"], ["beta", "9"]]


async def test_all_pages_are_listed_in_order(server: Server, log: Log, store: SqliteStore, worker: Worker) -> None:
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

    found = asked(server, store, "show", "acme", "2")

    assert found.returncode == 0
    assert found.stdout.endswith(f"\n\n{shown}\n")
    assert "reason:   invalid" in found.stdout and f"bytes:    {len(body)}" in found.stdout
    assert "\x1b" not in found.stdout
    nothing = asked(server, store, "show", "acme", "1")
    assert (nothing.returncode, nothing.stderr) == (1, "position 1 of acme is not in quarantine.\n")


def test_what_steers_a_terminal_is_written_as_an_escape() -> None:
    assert printable("a\x1b[31mb\tc\u202ed") == "a\\x1b[31mb\\tc\\u202ed"


# -- drop --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runs", [False, True], ids=["no projector", "a projector"])
async def test_a_drop_is_carried_out_with_a_projector_or_without(
    server: Server, log: Log, store: SqliteStore, worker: Worker, tmp_path: Path, runs: bool
) -> None:
    await spoiled(server, log)
    await worker.run_to_end()
    settings = {"REDIS_URL": server.url, "DATABASE_URL": f"sqlite:///{store.path}"}
    if runs:
        with process_of(("-m", "projector", "run"), tmp_path, "projector.log", **settings):
            await until(lambda: " applies " in (tmp_path / "projector.log").read_text())
            done = await asyncio.to_thread(asked, server, store, "drop", "acme", "--position", "7", "--position", "9", "--yes")
    else:
        done = asked(server, store, "drop", "acme", "--position", "7", "--position", "9", "--yes")

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "2 dropped; the log says so at position 10."
    assert "  acme 9: conflict, the event of that name is at position 5" in done.stdout
    assert quarantined(store) == [6, 8]
    [acme] = await status(log, store)
    assert (acme.dropped, acme.lag_records, acme.rows) == (3, 0, 5)
    await agrees(log, store)


async def test_a_drop_by_reason_and_one_of_everything(server: Server, log: Log, store: SqliteStore, worker: Worker) -> None:
    for tenant in ("acme", "beta"):
        await spoiled(server, log, tenant, bad=510)
    await worker.run_to_end()

    invalid = asked(server, store, "drop", "acme", "--reason", "invalid", "--yes")
    rest = asked(server, store, "drop", "acme", "--yes")

    assert "510 dropped" in invalid.stdout and "1 dropped" in rest.stdout
    assert {row[0] for row in dump(store)["quarantine"]} == {"beta"}
    [acme, beta] = await status(log, store)
    assert (acme.quarantined, acme.dropped, beta.quarantined, beta.dropped) == (0, 511 + 4, 511, 0)
    assert max(len(page[-1].body) for page in [page async for page in log.read("acme", 516)]) < 4_000
    await agrees(log, store)


async def test_to_drop_twice_is_to_drop_once(server: Server, log: Log, store: SqliteStore, worker: Worker) -> None:
    await spoiled(server, log)
    await worker.run_to_end()

    first = asked(server, store, "drop", "acme", "--position", "7", "--yes")
    second = asked(server, store, "drop", "acme", "--position", "7", "--yes")
    row = asked(server, store, "drop", "acme", "--position", "1", "--yes")

    assert "1 dropped" in first.stdout
    assert [(done.returncode, "nothing to drop" in done.stdout) for done in (second, row)] == [(0, True), (0, True)]
    assert await log.last_position("acme") == 10
    assert quarantined(store) == [6, 8, 9]


async def test_two_who_drop_the_same_at_once_count_it_once(server: Server, log: Log, store: SqliteStore, worker: Worker) -> None:
    await spoiled(server, log)
    await worker.run_to_end()

    await drop(log, store, Selection("acme", [7]))
    await log.append("acme", [event(session_id="between")])
    await drop(log, store, Selection("acme", [7]))
    await worker.run_to_end()

    assert quarantined(store) == [6, 8, 9]
    assert dump(store)["checkpoints"][0][4] == 1 + 2
    await agrees(log, store)


async def test_a_drop_that_is_killed_before_it_is_carried_out_is_not_said_twice(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await spoiled(server, log)
    await worker.run_to_end()

    died = asked(server, store, "drop", "acme", "--yes", FAILPOINT="between_note_and_apply")
    assert (died.returncode, quarantined(store), await log.last_position("acme")) == (137, [6, 7, 8, 9], 10)
    again = asked(server, store, "drop", "acme", "--yes")

    assert (again.returncode, "nothing to drop" in again.stdout) == (0, True)
    assert quarantined(store) == []
    assert await log.last_position("acme") == 10
    await agrees(log, store)


async def test_a_drop_that_is_killed_between_two_notes_goes_on_with_the_rest(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await spoiled(server, log, bad=PAGE_ROWS + 10)
    await worker.run_to_end()

    assert asked(server, store, "drop", "acme", "--yes", FAILPOINT="between_note_and_apply").returncode == 137
    again = asked(server, store, "drop", "acme", "--yes")

    assert "11 dropped" in again.stdout and quarantined(store) == []
    [acme] = await status(log, store)
    assert (acme.dropped, acme.quarantined) == (PAGE_ROWS + 11 + 2, 0)
    await agrees(log, store)


async def test_nothing_is_dropped_without_a_yes(server: Server, log: Log, store: SqliteStore, worker: Worker) -> None:
    await spoiled(server, log)
    await worker.run_to_end()

    done = asked(server, store, "drop", "acme")

    assert done.returncode == 1 and "Drop 4 records of acme?" in done.stdout
    assert (quarantined(store), await log.last_position("acme")) == ([6, 7, 8, 9], 9)


async def test_what_comes_into_quarantine_after_it_was_shown_stays(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await spoiled(server, log)
    await worker.run_to_end()
    server.client.xadd(keys_of("acme").log, {"event": "later", "received_at_us": 7, "version": 1}, id="10-0")
    await worker.run_to_end()

    await drop(log, store, Selection("acme", through=9))
    await worker.run_to_end()

    assert quarantined(store) == [10]


async def test_a_drop_waits_for_a_log_that_is_none_with_a_sentence(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await spoiled(server, log)
    await worker.run_to_end()
    server.client.flushall()

    behind = asked(server, store, "drop", "acme", "--yes")
    unknown = asked(server, store, "drop", "nobody", "--yes")

    assert behind.returncode == 1 and "the log of acme ends at position 0" in behind.stderr
    assert (unknown.returncode, "nothing to drop" in unknown.stdout) == (0, True)
    assert quarantined(store) == [6, 7, 8, 9]
    assert "A tenant's name" in asked(server, store, "drop", "no/body", "--yes").stderr


async def test_tables_that_are_behind_are_brought_level_first(server: Server, log: Log, store: SqliteStore) -> None:
    await spoiled(server, log)

    assert await catch_up(log, store, "acme", seconds=60)

    assert quarantined(store) == [6, 7, 8, 9]
    await control.append(log.connection, "acme", control.Drop([6]))
    assert not await catch_up(log, store, "acme", seconds=0)
    assert await catch_up(log, store, "acme", seconds=60)
    assert quarantined(store) == [7, 8, 9]


# -- retry -------------------------------------------------------------------------------------------------------------


async def test_a_record_that_was_lost_and_is_back_becomes_a_row(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
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

    asking = asked(server, store, "retry")
    done = asked(server, store, "retry", "acme", "--yes")

    assert asking.returncode == 1 and "5 in quarantine: 3 invalid, 2 would become rows now" in asking.stdout
    assert "  acme 2: row, page_view of session S1 at 2026-01-01T00:00:01Z" in asking.stdout
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "acme: 2 rows, 0 late duplicates or control records, 0 in quarantine"
    assert quarantined(store) == [6, 7, 8, 9]  # the later event of that name is the conflict now
    await agrees(log, store)


async def test_nothing_is_rebuilt_when_nothing_would_become_a_row(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await spoiled(server, log)
    await worker.run_to_end()

    done = asked(server, store, "retry")

    assert done.returncode == 0
    assert "4 in quarantine: 3 invalid, 1 conflicts" in done.stdout and "nothing was changed" in done.stdout
    assert not store.has_set(PREVIOUS) and quarantined(store) == [6, 7, 8, 9]


async def test_the_forecast_says_what_the_rebuild_then_does(server: Server, log: Log, store: SqliteStore, worker: Worker) -> None:
    """What a constraint of this table refused, and a record of a version that was not known."""
    await log.append("acme", [event(session_id="bad", event_id="e1"), event(session_id="good", event_id="e2")])
    with store.transaction():
        store.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON events WHEN new.session_id = 'bad' BEGIN SELECT raise(ABORT, 'not this'); END"
        )
    server.client.xadd(keys_of("acme").log, {"event": event(n=3).body, "received_at_us": 1, "version": 9}, id="3-0")
    await worker.run_to_end()
    with store.transaction():
        store.execute("DROP TRIGGER refuse")

    found = {one.position: one.outcome async for one in forecasts(log, store, Selection())}
    only = asked(server, store, "retry", "acme", "--position", "3", "--yes")
    done = asked(server, store, "retry", "--yes")

    assert found == {1: "row", 3: "invalid"}
    assert "nothing was changed" in only.stdout
    assert done.stdout.splitlines()[-1] == "acme: 1 rows, 0 late duplicates or control records, 0 in quarantine"
    assert quarantined(store) == [3]


async def test_a_retry_of_tables_of_another_version_names_the_rebuild(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await log.append("acme", events(1))
    server.client.xdel(keys_of("acme").log, "1-0")
    await log.append("acme", events(2))
    await worker.run_to_end()
    with store.transaction():
        store.execute("UPDATE table_sets SET projection_version = 1")
        store.execute("UPDATE quarantine SET position = 1, reason = 'invalid', body = ?", (event().body,))

    done = asked(server, store, "retry", "--yes")

    assert done.returncode == 1 and "run `penstock projector rebuild`" in done.stderr
