"""A backup holds all of an installation.

It is made while everything runs, and a restore from it alone gives the installation back, to the last record.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pysqlite3
import pytest

from projector.backup.create import create_backup
from projector.backup.folder import BackupFolder
from projector.live.worker import Worker
from projector.store.sqlite import SqliteStore
from streams import Connection, Log, Record, keys_of
from streams.erasure import delete_log
from streams.errors import LogUnavailable
from tests.support.events import body, event, events
from tests.support.http import environment, running, wait_until
from tests.support.needs import needs
from tests.support.servers import Server

pytestmark = pytest.mark.anyio
one_server = pytest.mark.parametrize("shared_server", ["valkey"], indirect=True)

BACKUP_POINTS = ("after_tables_before_log", "between_logs", "before_backup_is_complete")
RESTORE_POINTS = (
    "before_tables_are_adopted",
    "after_tables_before_logs",
    "between_archive_and_server",
    "between_restored_logs",
)


class Installation:
    """An installation: a server, a folder with tables and archive."""

    def __init__(self, server: Server, folder: Path, **settings: Any) -> None:
        self.server, self.folder = server, folder
        self.settings = {"REDIS_URL": server.url, "DATA_DIR": folder, "COLUMNS": "200"} | settings
        self.tables = folder / "penstock.db"
        folder.mkdir(exist_ok=True)

    def start(self, *arguments: Any, **variables: Any) -> subprocess.Popen[str]:
        """Start a command."""
        return subprocess.Popen(
            [sys.executable, "-m", *map(str, arguments)], cwd=self.folder.parent, env=environment(**self.settings | variables),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=take_ctrl_c,
        )  # fmt: skip

    def command(self, *arguments: Any, status: int = 0, **variables: Any) -> str:
        """The output of a command, which must end with `status`."""
        process = self.start(*arguments, **variables)
        out, errors = process.communicate(timeout=120)
        assert process.returncode == status, (arguments, out, errors)
        return out + errors

    def destroy(self) -> None:
        """Lose everything."""
        self.server.client.flushall()
        shutil.rmtree(self.folder)
        self.folder.mkdir()

    def status(self) -> dict[str, Any]:
        """The output of `projector status` by tenant, without times."""
        statuses = {entry.pop("tenant"): entry for entry in json.loads(self.command("projector", "status", "--json"))}
        for entry in statuses.values():
            entry.pop("lag_seconds")
        return statuses


@pytest.fixture
def installation(server: Server, tmp_path: Path) -> Installation:
    return Installation(server, tmp_path / "data")


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def rows_of(path: Path) -> dict[str, list[Any]]:
    """Every row of every table in a database file, by table."""
    connection = pysqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
        return {name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=repr) for name in names}
    finally:
        connection.close()


async def records_of(installation: Installation, *tenants: str) -> dict[str, list[Record]]:
    """Every record of all tenants, or of those that are named."""
    url = "" if installation.settings.get("ARCHIVE_URL") == "none" else f"file://{installation.folder}/archive"
    async with Log(Connection(installation.server.url), archive_url=url) as log:
        tenants = tenants or tuple(summary.tenant for summary in await log.summaries())
        return {tenant: [record async for page in log.read(tenant, 0) for record in page] for tenant in tenants}


# -- backup and restore ----------------------------------------------------------------------------------------------------


@contextmanager
def writing(url: str, tenant: str) -> Iterator[list[int]]:
    """Post events for a tenant in a thread; yields their positions."""
    positions: list[int] = []
    ended = threading.Event()

    def write() -> None:
        with httpx.Client(base_url=url, headers={"X-Tenant-ID": tenant}) as client:
            while not ended.is_set():
                answer = client.post("/api/events", content=body(event_id=f"w{len(positions)}"))
                positions.append(answer.json()["position"])

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield positions
    finally:
        ended.set()
        thread.join()


def post(url: str, content: bytes, tenant: str = "acme", **headers: str) -> httpx.Response:
    return httpx.post(f"{url}/api/events", content=content, headers={"X-Tenant-ID": tenant} | headers)


def batch(count: int, name: str) -> bytes:
    return b"[%s]" % b",".join(body(event_id=f"{name}{number}", session_id=f"S{number % 7}") for number in range(count))


def fill(installation: Installation, url: str) -> str:
    """Fill an installation with all kinds of content; returns a key of acme.

    Archived and hot records, a refused event, a duplicate, quarantine, limits, a deleted tenant, and a tenant whose events were
    all rejected.
    """
    for tenant in ("acme", "globex", "deleted"):
        post(url, batch(300, "cold"), tenant)
    wait_until(lambda: all(entry["lag_records"] == 0 for entry in installation.status().values()), "all is applied")
    installation.command("streams", "archive", "--once", HOT_SECONDS=0)
    installation.server.client.xadd(keys_of("acme").log, {"event": "no event", "received_at_us": 7, "version": 1}, id="301-0")
    post(url, batch(20, "hot"), "acme")
    post(url, body(event_id="hot1", session_id="S1"), "acme")
    post(url, body(timestamp="yesterday"), "acme")
    post(url, body(timestamp="yesterday"), "none-yet")
    post(url, body(event_id="of the day"), "globex")
    installation.command("api", "tenant", "set", "globex", "--events-per-day", 1000)
    installation.command("api", "tenant", "delete", "deleted", "--yes")
    return installation.command("api", "key", "create", "acme", "--role", "admin").split()[0]


@pytest.mark.parametrize("archive", ["", "none"], ids=["archive", "no archive"])
async def test_a_backup_made_during_writes_is_restored_to_its_last_record(
    server: Server, tmp_path: Path, backup: Path, archive: str
) -> None:
    installation = Installation(server, tmp_path / "data")
    with running(server, installation.folder, projector=True, EVENTS_PER_DAY=100_000) as api:
        secret = fill(installation, api.url)
        with writing(api.url, "acme") as positions, writing(api.url, "busy") as busy_positions:
            wait_until(lambda: positions and busy_positions, "events are written")
            before = positions[-1]
            output = installation.command("projector", "backup", backup)
            after = len(positions)
            wait_until(lambda: len(positions) > after, "events are still written")
    last_positions = {log.tenant: log.last for log in BackupFolder(str(backup)).read().tenants}
    records = {tenant: stored[: last_positions[tenant]] for tenant, stored in (await records_of(installation)).items()}
    rows = rows_of(backup / "tables.db")
    assert f"backed up: 4 tenants, {sum(last_positions.values())} records" in output
    assert (last_positions["none-yet"], last_positions["globex"]) == (0, 301)
    assert before <= last_positions["acme"] <= positions[after] and last_positions["acme"] < positions[-1]
    assert [len(rows[table]) for table in ("api_keys", "tenant_limits", "deleted_tenants", "quarantine")] == [1, 1, 1, 1]

    installation.destroy()
    installation.settings["ARCHIVE_URL"] = archive
    output = installation.command("projector", "restore", backup)

    assert f"4 tenants, {sum(last_positions.values())} records, 0 of them already there" in output
    assert rows_of(installation.tables) == rows
    assert await records_of(installation) == records
    assert installation.command("streams", "verify") == "every log is whole\n"
    with running(server, installation.folder, projector=True, AUTH="keys", ARCHIVE_URL=archive) as api:
        key = {"Authorization": f"Bearer {secret}"}
        resent = [post(api.url, body(event_id=name, session_id="S1"), **key) for name in ("cold1", "hot1")]
        new = post(api.url, body(event_id="new"), **key)
        assert [(answer.status_code, answer.json()["position"]) for answer in resent] == [(200, 2), (200, 303)]
        assert (new.status_code, new.json()["position"]) == (202, last_positions["acme"] + 1)
        wait_until(lambda: all(entry["lag_records"] == 0 for entry in installation.status().values()), "all is applied")
    status = installation.status()
    assert [entry["stuck"] for entry in status.values()] == [None] * 4
    assert {tenant: entry["records"] for tenant, entry in status.items()} == last_positions | {"acme": last_positions["acme"] + 1}
    assert (status["acme"]["rejected"], status["acme"]["duplicate"], status["none-yet"]["rejected"]) == (1, 3, 1)
    assert int(server.client.hget(keys_of("globex").usage, "today") or 0) == 301
    assert "the tables are what the log says" in installation.command("projector", "verify")
    with running(server, installation.folder, ARCHIVE_URL=archive) as api:
        assert post(api.url, body(), "deleted").status_code == 410


# -- a second backup -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def log(installation: Installation) -> Any:
    async with Log(Connection(installation.server.url), archive_url=f"file://{installation.folder}/archive") as log:
        yield log


@pytest.fixture
def store(installation: Installation) -> Iterator[Any]:
    with SqliteStore(str(installation.tables), cache_mib=8) as store:
        yield store


async def append_and_apply(log: Log, worker: Worker, count: int, name: str, *tenants: str) -> None:
    for tenant in tenants or ("acme", "globex"):
        await log.append(tenant, [event(event_id=f"{name}{number}") for number in range(count)])
    await worker.run_to_end()


def segments_of(backup: Path) -> dict[str, int]:
    return {str(path.relative_to(backup)): path.stat().st_ino for path in sorted(backup.rglob("*.parquet"))}


async def test_a_second_backup_adds_only_new_records(installation: Installation, log: Log, worker: Worker, backup: Path) -> None:
    await append_and_apply(log, worker, 200, "a")
    installation.command("projector", "backup", backup)
    before = segments_of(backup)
    await append_and_apply(log, worker, 5, "b", "acme")

    assert "205 records, 5 of them new" in installation.command("projector", "backup", backup).replace(
        "405 records", "205 records"
    )
    assert before.items() <= segments_of(backup).items() and len(segments_of(backup)) == 3
    records, rows = await records_of(installation), rows_of(backup / "tables.db")
    installation.destroy()
    installation.command("projector", "restore", backup)

    assert (await records_of(installation), rows_of(installation.tables)) == (records, rows)
    assert len(records["acme"]) == 205 and len(rows["events"]) == 405


@one_server
async def test_a_rewritten_log_is_refused_with_its_position(
    installation: Installation, log: Log, worker: Worker, backup: Path
) -> None:
    await append_and_apply(log, worker, 8, "a")
    installation.command("projector", "backup", backup)
    before = (backup / "backup.json").read_bytes()
    client, key = installation.server.client, keys_of("acme").log
    entries = client.xrange(key)
    client.delete(key)
    for number, (entry_id, fields) in enumerate(entries):
        client.xadd(key, fields | ({b"event": b"{}"} if number == 5 else {}), id=entry_id)

    output = installation.command("projector", "backup", backup, status=1)

    assert "the log of acme has another record at position 6 than the backup: it was rewritten" in output
    assert (backup / "backup.json").read_bytes() == before


@one_server
async def test_a_log_that_lost_its_end_or_everything_is_refused(
    installation: Installation, log: Log, worker: Worker, backup: Path
) -> None:
    await append_and_apply(log, worker, 8, "a")
    installation.command("projector", "backup", backup)
    installation.server.client.flushall()

    assert "there is no log of acme, and the backup holds it up to 8" in installation.command(
        "projector", "backup", backup, status=1
    )
    await append_and_apply(log, worker, 7, "a", "acme", "globex")
    assert "the log of acme ends at position 7" in installation.command("projector", "backup", backup, status=1)


@one_server
async def test_a_deleted_tenant_is_not_in_the_next_backup(
    installation: Installation, log: Log, worker: Worker, backup: Path
) -> None:
    await append_and_apply(log, worker, 8, "a", "acme", "delete-me")
    installation.command("projector", "backup", backup)
    installation.command("api", "tenant", "delete", "delete-me", "--yes")

    installation.command("projector", "backup", backup)

    assert [log.tenant for log in BackupFolder(str(backup)).read().tenants] == ["acme"]
    leaks = [
        path for path in backup.rglob("*") if "delete-me" in path.name or (path.is_file() and b"delete-me" in path.read_bytes())
    ]
    assert leaks == []


@one_server
async def test_a_tenant_that_is_deleted_during_a_backup_is_not_in_it(
    installation: Installation, log: Log, worker: Worker, backup: Path
) -> None:
    """The tenant is deleted just after the tables were copied."""
    await append_and_apply(log, worker, 8, "a", "acme", "delete-me")
    copies = []

    async def copy_tables(path: str) -> None:
        copies.append(installation.command("projector", "copy", path))
        if len(copies) == 1:
            installation.command("api", "tenant", "delete", "delete-me", "--yes")

    folder = BackupFolder(str(backup))
    with folder.locked():
        created = await create_backup(log, folder, copy_tables, lambda done, total: None)

    assert [log.tenant for log in created.backup.tenants] == ["acme"] and len(copies) == 2
    assert b"delete-me" not in (backup / "tables.db").read_bytes()


# -- interruptions -------------------------------------------------------------------------------------------------------


@one_server
@pytest.mark.parametrize("point", BACKUP_POINTS)
async def test_a_killed_backup_leaves_the_previous_backup_or_none(
    installation: Installation, log: Log, worker: Worker, backup: Path, point: str
) -> None:
    await append_and_apply(log, worker, 20, "a")
    installation.command("projector", "backup", backup, status=137, FAILPOINT=point)
    assert "is no backup" in installation.command("projector", "restore", backup, status=1)
    installation.command("projector", "backup", backup)
    records, rows = await records_of(installation), rows_of(backup / "tables.db")
    await append_and_apply(log, worker, 20, "b")
    installation.command("projector", "backup", backup, status=137, FAILPOINT=point)

    installation.destroy()
    installation.command("projector", "restore", backup)

    assert (await records_of(installation), rows_of(installation.tables)) == (records, rows)


@one_server
async def test_a_backup_killed_before_its_tables_are_renamed_is_complete(
    installation: Installation, log: Log, worker: Worker, backup: Path
) -> None:
    await append_and_apply(log, worker, 20, "a")
    installation.command("projector", "backup", backup)
    old = (backup / "tables.db").read_bytes()
    await append_and_apply(log, worker, 20, "b")
    installation.command("projector", "backup", backup)
    rows = rows_of(backup / "tables.db")
    (backup / "tables.db").rename(backup / "tables.next.db")
    (backup / "tables.db").write_bytes(old)

    installation.destroy()
    installation.command("projector", "restore", backup)

    assert rows_of(installation.tables) == rows
    installation.command("projector", "backup", backup)
    assert sorted(os.listdir(backup)) == ["backup.json", "log", "tables.db"]


def enlarge(tables: Path) -> None:
    """Add 200 MB to a database, so that a copy takes a while."""
    rows = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 50_000)"
    connection = pysqlite3.connect(tables)
    try:
        connection.execute("CREATE TABLE ballast (x)")
        connection.execute(f"INSERT INTO ballast {rows} SELECT zeroblob(4000) FROM n")
        connection.commit()
    finally:
        connection.close()


def take_ctrl_c() -> None:
    """In the child: a shell starts what runs in the background with SIGINT ignored, and the tests with it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupt(copying: subprocess.Popen[str], part: Path, *signals: int) -> int:
    """Send signals to a command while it copies the tables; its exit status."""
    wait_until(lambda: part.exists() and part.stat().st_size, "the tables are copied")
    sent_at = time.monotonic()
    for number in signals:
        copying.send_signal(number)
        time.sleep(0.003)
    _, errors = copying.communicate(timeout=60)
    assert time.monotonic() - sent_at < 5, "the command ended late"
    assert "Traceback" not in errors and "copied" not in errors
    return copying.returncode


@one_server
async def test_a_copy_of_the_tables_is_interrupted_at_any_moment(
    installation: Installation, log: Log, worker: Worker, backup: Path
) -> None:
    await append_and_apply(log, worker, 20, "a")
    enlarge(installation.tables)
    part, copy = backup / "tables.next.db.part", installation.folder / "copy.db"

    assert interrupt(installation.start("projector", "backup", backup), part, signal.SIGINT) == 130
    assert os.listdir(backup) == []
    assert interrupt(installation.start("projector", "copy", copy), Path(f"{copy}.part"), signal.SIGINT, signal.SIGINT) == 130
    assert not list(installation.folder.glob("copy.db*"))
    assert interrupt(installation.start("projector", "backup", backup), part, signal.SIGTERM) == -signal.SIGTERM
    assert part.exists()
    installation.command("projector", "backup", backup)

    assert sorted(os.listdir(backup)) == ["backup.json", "log", "tables.db"]


@one_server
async def test_what_a_killed_copy_left_is_removed(installation: Installation, log: Log, worker: Worker, backup: Path) -> None:
    await append_and_apply(log, worker, 20, "a")
    backup.mkdir()
    copy = installation.folder / "copy.db"
    for unfinished in (backup / "tables.next.db.part", installation.folder / "copy.db.part"):
        for ending in ("", "-journal", "-wal", "-shm"):
            Path(f"{unfinished}{ending}").write_bytes(b"half")

    installation.command("projector", "backup", backup)
    installation.command("projector", "copy", copy)

    assert sorted(os.listdir(backup)) == ["backup.json", "log", "tables.db"]
    assert list(installation.folder.glob("copy.db*")) == [copy]
    assert rows_of(copy) == rows_of(backup / "tables.db") == rows_of(installation.tables)


@one_server
@pytest.mark.parametrize("point", RESTORE_POINTS)
async def test_a_killed_restore_is_finished_by_the_next(
    installation: Installation, log: Log, worker: Worker, backup: Path, point: str
) -> None:
    await append_and_apply(log, worker, 20, "a")
    installation.command("projector", "backup", backup)
    records, rows = await records_of(installation), rows_of(backup / "tables.db")
    installation.destroy()
    installation.command("projector", "restore", backup, status=137, FAILPOINT=point)

    installation.command("projector", "restore", backup)

    assert (await records_of(installation), rows_of(installation.tables)) == (records, rows)
    assert len(installation.server.client.keys("*:dedup:*")) == 40
    assert installation.command("streams", "verify") == "every log is whole\n"
    assert "40 records, 40 of them already there" in installation.command("projector", "restore", backup)


@one_server
async def test_only_one_backup_at_a_time_is_made_in_a_folder(installation: Installation, backup: Path) -> None:
    folder = BackupFolder(str(backup))
    with folder.locked():
        assert "another backup is being made" in installation.command("projector", "backup", backup, status=1)


# -- refused -------------------------------------------------------------------------------------------------------------


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: list[tuple[str, Callable[[Path], Any]]] = [
    ("backup.json", flip_a_bit),
    ("tables.db", flip_a_bit),
    ("tables.db", os.unlink),
    ("log/tenant=acme/*.parquet", flip_a_bit),
    ("log/tenant=acme/*.parquet", os.unlink),
    ("log/tenant=globex/manifest.json", lambda path: os.truncate(path, 100)),
    ("log/tenant=globex/manifest.json", os.unlink),
]


@one_server
async def test_a_damaged_backup_is_refused_with_the_name_of_the_file(
    installation: Installation, log: Log, worker: Worker, backup: Path
) -> None:
    await append_and_apply(log, worker, 20, "a")
    installation.command("projector", "backup", backup)
    installation.destroy()
    for name, damage in DAMAGES:
        [path] = backup.glob(name)
        content = path.read_bytes()
        damage(path)

        output = installation.command("projector", "restore", backup, status=1)

        path.write_bytes(content)
        assert path.name in output or (path.name == "manifest.json" and "misses the records 1 to 20 of globex" in output)
        assert installation.server.client.keys() == [] and list(installation.folder.iterdir()) == []


@one_server
async def test_other_logs_and_other_tables_are_not_overwritten(
    installation: Installation, log: Log, worker: Worker, backup: Path
) -> None:
    await append_and_apply(log, worker, 20, "a")
    installation.command("projector", "backup", backup)
    installation.destroy()
    async with Log(Connection(installation.server.url)) as other:
        await other.append("globex", events(3))
    before = {key: installation.server.client.dump(key) for key in installation.server.client.scan_iter()}

    output = installation.command("projector", "restore", backup, status=1)
    assert output.endswith("the log of globex has another record at position 1 than the backup.\n")
    assert {key: installation.server.client.dump(key) for key in installation.server.client.scan_iter()} == before
    assert not installation.tables.exists()

    installation.server.client.flushall()
    installation.command("api", "key", "create", "acme")
    rows = rows_of(installation.tables)
    output = installation.command("projector", "restore", backup, status=1)
    assert "has rows in api_keys, and they are not those of the copy; nothing is overwritten" in output
    assert rows_of(installation.tables) == rows and installation.server.client.keys() == []


@one_server
async def test_a_restore_does_not_bring_back_a_deleted_tenant(
    installation: Installation, log: Log, worker: Worker, backup: Path
) -> None:
    await append_and_apply(log, worker, 20, "a")
    installation.command("projector", "backup", backup)
    installation.destroy()
    async with Connection(installation.server.url) as connection:
        await delete_log(connection, "acme")

    output = installation.command("projector", "restore", backup, status=1).splitlines()

    assert output[-1] == "acme was deleted on this server; `penstock api tenant create acme` lets it begin again."
    assert [line for line in output if "Traceback" in line or line.startswith(" ")] == []
    assert not installation.tables.exists()


@one_server
async def test_a_folder_with_other_files_is_not_touched(installation: Installation, backup: Path) -> None:
    backup.mkdir()
    (backup / "letters.part").write_text("mine")
    (backup / "thesis").write_text("mine")

    assert "holds other files, such as thesis" in installation.command("projector", "backup", backup, status=1)
    assert sorted(os.listdir(backup)) == ["letters.part", "thesis"]


@contextmanager
def small_disk(path: Path) -> Iterator[None]:
    path.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(path)], capture_output=True, check=False)
    needs(mount.returncode == 0, "the right to mount a tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


@one_server
async def test_a_full_disk_leaves_no_backup(installation: Installation, log: Log, worker: Worker, backup: Path) -> None:
    await append_and_apply(log, worker, 2, "a")
    with small_disk(backup):
        (backup / "log").mkdir()
        (backup / "log" / "filler").write_bytes(os.urandom(300_000))
        output = installation.command("projector", "backup", backup, status=1)
        assert "disk is full" in output
        (backup / "log" / "filler").write_bytes(os.urandom(50_000))
        await log.append("acme", [event(event_id=str(number), noise=os.urandom(5_000).hex()) for number in range(60)])
        output = installation.command("projector", "backup", backup, status=1)
        assert "No space left on device" in output
        assert not (backup / "backup.json").exists()


@one_server
async def test_a_server_that_is_down_leaves_no_backup(installation: Installation, backup: Path) -> None:
    async def copy_tables(path: str) -> None:
        installation.command("projector", "copy", path)

    folder = BackupFolder(str(backup))
    async with Log(Connection(f"unix://{backup}/absent", budget_seconds=0.1)) as log:
        with folder.locked(), pytest.raises(LogUnavailable):
            await create_backup(log, folder, copy_tables, lambda done, total: None)

    assert not (backup / "backup.json").exists()
