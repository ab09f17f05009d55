"""Tables of a past time or position are written to a new database."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pysqlite3
import pytest

from projector.commands.cli import moment_us
from projector.divergence import TenantUnknown
from projector.live.worker import Worker
from projector.projection import project
from projector.rebuild import replay
from projector.rebuild.point_in_time import Cut, write
from projector.rebuild.rebuild import RebuildRefused
from projector.store import OutputExists
from projector.store.sqlite import SqliteStore
from streams import Log, Record, control, keys_of
from streams.errors import Gap
from tests.support.commands import command
from tests.support.events import event, events
from tests.support.logs import spoiled
from tests.support.servers import Server
from tests.support.tables import dump

pytestmark = pytest.mark.anyio

NOON_US = moment_us("2026-11-20T12:00Z")
MINUTE_US = 60_000_000


def fill(server: Server, tenant: str, minutes: list[int]) -> None:
    """Fill a log with events received at `minutes` after noon."""
    for i, (minute, sent) in enumerate(zip(minutes, events(len(minutes)), strict=True)):
        fields = {"event": sent.body, "received_at_us": NOON_US + minute * MINUTE_US, "version": 1}
        server.client.xadd(keys_of(tenant).log, fields, id=f"{i + 1}-0")
    server.client.sadd(keys_of(tenant).tenants, tenant)


async def records_of(log: Log, tenant: str) -> list[Record]:
    return [record async for page in log.read(tenant, 0) for record in page]


def tables_in(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of a database."""
    with SqliteStore(str(path)) as store:
        return dump(store)


async def folded(log: Log, tmp_path: Path, **positions: int) -> dict[str, list[tuple[Any, ...]]]:
    """The tables of the first records of some tenants."""
    (tmp_path / "folded.db").unlink(missing_ok=True)
    with SqliteStore(str(tmp_path / "folded.db")) as store:
        for tenant, through in positions.items():
            records = await records_of(log, tenant)
            store.apply([project(tenant, 0, records[:through], through)])
        return dump(store)


@pytest.mark.parametrize("processes", [False, True], ids=["in process", "parallel"])
@pytest.mark.parametrize(
    ("minute", "acme", "beta"), [(0, 0, 0), (1, 1, 0), (3, 3, 0), (5, 5, 1), (6, 5, 2), (7, 5, 3), (8, 8, 4), (99, 8, 4)]
)
async def test_the_log_of_a_tenant_is_cut_before_the_first_record_of_that_time_or_later(
    server: Server, log: Log, store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minute: int, acme: int,
    beta: int, processes: bool,
) -> None:  # fmt: skip
    """The sixth record of acme has a later time than the seventh and eighth."""
    monkeypatch.setattr(replay, "PROCESS_RECORDS", 1 if processes else 50_000)
    fill(server, "acme", [0, 1, 2, 3, 4, 7, 5, 6])
    fill(server, "beta", [4, 5, 6, 7])
    out = tmp_path / "out.db"

    written = await write(log, store, str(out), Cut(before_us=NOON_US + minute * MINUTE_US))

    expected = {tenant: through for tenant, through in (("acme", acme), ("beta", beta)) if through}
    assert tables_in(out) == await folded(log, tmp_path, **expected)
    assert (written.tenants, written.records) == (len(expected), acme + beta)


async def test_tables_at_a_position_equal_the_live_tables_of_that_time_with_their_control_records(
    server: Server, log: Log, store: SqliteStore, worker: Worker, tmp_path: Path
) -> None:
    await spoiled(server, log)
    await worker.run_to_end()
    before = dump(store)
    await control.append(log.connection, "acme", control.Drop([6, 9]))
    await worker.run_to_end()
    after = dump(store)
    await log.append("acme", [event(session_id="later")])
    await log.append("beta", events(3))
    await worker.run_to_end()

    for position, tables in ((9, before), (10, after)):
        await write(log, store, str(tmp_path / f"{position}.db"), Cut(position=position), tenants=["acme"])
        assert tables_in(tmp_path / f"{position}.db") == tables

    assert before["quarantine"] != after["quarantine"]
    with pytest.raises(RebuildRefused, match="the log of acme ends at position 11"):
        await write(log, store, str(tmp_path / "12.db"), Cut(position=12), tenants=["acme"])


async def test_the_file_has_the_tables_and_indexes_of_live_tables_and_needs_no_other_file(
    server: Server, log: Log, store: SqliteStore, tmp_path: Path
) -> None:
    fill(server, "acme", [0, 1, 2])
    out = tmp_path / "made" / "out.db"
    out.parent.mkdir()
    await write(log, store, str(out), Cut(before_us=NOON_US + 2 * MINUTE_US))

    assert [file.name for file in out.parent.iterdir()] == ["out.db"]
    code = (
        "import sqlite3, sys; db = sqlite3.connect(f'file:{sys.argv[1]}?mode=ro&immutable=1', uri=True); "
        "print(db.execute('SELECT position, received_at FROM events ORDER BY 1').fetchall(), "
        "db.execute('PRAGMA integrity_check').fetchall())"
    )
    printed = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True, check=True).stdout
    assert printed == "[(1, '2026-11-20T12:00:00.000000Z'), (2, '2026-11-20T12:01:00.000000Z')] [('ok',)]\n"
    schemas = []
    for path in (store.path, str(out)):
        connection = pysqlite3.connect(f"file:{path}?mode=ro", uri=True)
        schema = connection.execute("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
        connection.close()
        schemas.append(sorted((kind, re.sub(r"_g\d+", "", name), re.sub(r'_g\d+|"', "", sql)) for kind, name, sql in schema))
    assert schemas[0] == schemas[1]


async def test_an_existing_file_is_not_touched(server: Server, log: Log, store: SqliteStore, tmp_path: Path) -> None:
    fill(server, "acme", [0, 1, 2])
    out, dangling = tmp_path / "out.db", tmp_path / "dangling.db"
    out.write_text("mine")
    dangling.symlink_to(tmp_path / "nowhere")

    for path in (out, dangling):
        with pytest.raises(OutputExists):
            await write(log, store, str(path), Cut())

    refused = command(server, store, "at", "2026-11-20T12:02Z", "--out", str(out))
    assert refused.returncode == 1 and "exists already; nothing is overwritten" in refused.stderr
    assert out.read_text() == "mine" and not (tmp_path / "nowhere").exists()


async def test_a_file_created_meanwhile_is_not_touched(
    server: Server, log: Log, store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(server, "acme", [0, 1, 2])
    out = tmp_path / "out.db"

    def appear(done: int, total: int) -> None:
        out.write_text("other")

    with pytest.raises(OutputExists):
        await write(log, store, str(out), Cut(), progress=appear)

    assert out.read_text() == "other"
    assert list(tmp_path.glob("out.db.*")) == []


async def test_a_gap_before_the_cut_is_refused_and_a_gap_after_it_is_not(
    server: Server, log: Log, store: SqliteStore, worker: Worker, tmp_path: Path
) -> None:
    fill(server, "acme", [0, 1, 2, 3, 4])
    server.client.xdel(keys_of("acme").log, "3-0")

    await write(log, store, str(tmp_path / "before.db"), Cut(position=2), tenants=["acme"])
    with pytest.raises(Gap, match="positions 3 to 3"):
        await write(log, store, str(tmp_path / "out.db"), Cut(before_us=NOON_US + 4 * MINUTE_US))
    assert list(tmp_path.glob("out.db*")) == []
    await write(log, store, str(tmp_path / "out.db"), Cut(before_us=NOON_US + 4 * MINUTE_US), accept_loss=True)

    tables = tables_in(tmp_path / "out.db")
    assert [row[1] for row in tables["events"]] == [1, 2, 4]
    assert [(row[1], row[4]) for row in tables["quarantine"]] == [(3, "lost")]


async def test_a_log_that_diverged_from_the_tables_is_refused(
    server: Server, log: Log, store: SqliteStore, worker: Worker, tmp_path: Path
) -> None:
    await log.append("acme", events(5))
    await worker.run_to_end()
    server.client.flushall()
    await log.append("acme", events(3))

    with pytest.raises(RebuildRefused, match="records 4 to 5 are missing"):
        await write(log, store, str(tmp_path / "out.db"), Cut())

    assert not (tmp_path / "out.db").exists()


async def test_a_deleted_tenant_is_not_in_the_file(server: Server, log: Log, store: SqliteStore, tmp_path: Path) -> None:
    for tenant in ("acme", "beta"):
        fill(server, tenant, [0, 1])
    store.delete_tenant("acme")

    await write(log, store, str(tmp_path / "out.db"), Cut())

    assert {row[0] for row in tables_in(tmp_path / "out.db")["events"]} == {"beta"}
    with pytest.raises(TenantUnknown):
        await write(log, store, str(tmp_path / "none.db"), Cut(), tenants=["acme"])


async def test_the_command_writes_the_file_and_shows_progress(
    server: Server, log: Log, store: SqliteStore, worker: Worker, tmp_path: Path
) -> None:
    fill(server, "acme", [0, 1, 2])
    fill(server, "beta", [0, 1, 2])
    await worker.run_to_end()
    live = dump(store)

    all_tenants = command(server, store, "at", "2026-11-20T13:01+01:00", "--out", str(tmp_path / "a.db"))
    beta = command(server, store, "at", "--position", "2", "--tenant", "beta", "--out", str(tmp_path / "b.db"))
    refused = [
        command(server, store, "at", *arguments, "--out", str(tmp_path / "c.db"))
        for arguments in ((), ("2026-11-20",), ("2026-11-20T12:00Z", "--position", "1", "--tenant", "acme"), ("--position", "1"))
    ]

    assert all_tenants.stdout.startswith("made: 2 tenants, 2 records in ") and "replaying: 2 of 2 records" in all_tenants.stderr
    assert [row[:2] for row in tables_in(tmp_path / "a.db")["events"]] == [("acme", 1), ("beta", 1)]
    assert beta.returncode == 0 and [row[:2] for row in tables_in(tmp_path / "b.db")["events"]] == [("beta", 1), ("beta", 2)]
    assert [process.returncode for process in refused] == [2, 2, 2, 2] and not (tmp_path / "c.db").exists()
    assert dump(store) == live
