"""A backup holds all of an installation.

It is made while everything runs, and a restore from it alone gives the installation back, to the last record.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
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


class House:
    """An installation: a server, a folder with tables and archive."""

    def __init__(self, server: Server, folder: Path, **settings: Any) -> None:
        self.server, self.folder = server, folder
        self.settings = {"REDIS_URL": server.url, "DATA_DIR": folder, "COLUMNS": "200"} | settings
        self.tables = folder / "penstock.db"
        folder.mkdir(exist_ok=True)

    def begin(self, *arguments: Any, **more: Any) -> subprocess.Popen[str]:
        """A command that runs."""
        return subprocess.Popen(
            [sys.executable, "-m", *map(str, arguments)], cwd=self.folder.parent, env=environment(**self.settings | more),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def command(self, *arguments: Any, status: int = 0, **more: Any) -> str:
        """What a command says, to its end, which must be of that status."""
        process = self.begin(*arguments, **more)
        out, errors = process.communicate(timeout=120)
        assert process.returncode == status, (arguments, out, errors)
        return out + errors

    def destroy(self) -> None:
        """Lose everything."""
        self.server.client.flushall()
        shutil.rmtree(self.folder)
        self.folder.mkdir()

    def status(self) -> dict[str, Any]:
        """What `projector status` says of each tenant, without times."""
        statuses = {entry.pop("tenant"): entry for entry in json.loads(self.command("projector", "status", "--json"))}
        for entry in statuses.values():
            entry.pop("lag_seconds")
        return statuses


@pytest.fixture
def house(server: Server, tmp_path: Path) -> House:
    return House(server, tmp_path / "data")


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def rows_of(path: Path) -> dict[str, list[Any]]:
    """Every row of every table in a database file, by table."""
    connection = pysqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
        return {name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=repr) for name in names}
    finally:
        connection.close()


async def records_of(house: House, *tenants: str) -> dict[str, list[Record]]:
    """Every record of all tenants, or of those that are named."""
    url = "" if house.settings.get("ARCHIVE_URL") == "none" else f"file://{house.folder}/archive"
    async with Log(Connection(house.server.url), archive_url=url) as log:
        tenants = tenants or tuple(summary.tenant for summary in await log.summaries())
        return {tenant: [record async for page in log.read(tenant, 0) for record in page] for tenant in tenants}


# -- the drill -----------------------------------------------------------------------------------------------------------


@contextmanager
def writing(url: str, tenant: str) -> Iterator[list[int]]:
    """Post events for a tenant, one after another; their positions."""
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


def filled(house: House, url: str) -> str:
    """Fill an installation with everything that a backup holds; a key of acme.

    Archived and hot records, a refused event, a duplicate, quarantine, limits, a deleted tenant, and a tenant whose events were
    all rejected.
    """
    for tenant in ("acme", "globex", "deleted"):
        post(url, batch(300, "cold"), tenant)
    wait_until(lambda: all(entry["lag_records"] == 0 for entry in house.status().values()), "all is applied")
    house.command("streams", "archive", "--once", HOT_SECONDS=0)
    house.server.client.xadd(keys_of("acme").log, {"event": "no event", "received_at_us": 7, "version": 1}, id="301-0")
    post(url, batch(20, "hot"), "acme")
    post(url, body(event_id="hot1", session_id="S1"), "acme")
    post(url, body(timestamp="yesterday"), "acme")
    post(url, body(timestamp="yesterday"), "none-yet")
    post(url, body(event_id="of the day"), "globex")
    house.command("api", "tenant", "set", "globex", "--events-per-day", 1000)
    house.command("api", "tenant", "delete", "deleted", "--yes")
    return house.command("api", "key", "create", "acme", "--role", "admin").split()[0]


@pytest.mark.parametrize("archive", ["", "none"], ids=["archive", "no archive"])
async def test_a_backup_that_was_made_under_writes_is_restored_to_the_last_record(
    server: Server, tmp_path: Path, kept: Path, archive: str
) -> None:
    house = House(server, tmp_path / "data")
    with running(server, house.folder, projector=True, EVENTS_PER_DAY=100_000) as api:
        secret = filled(house, api.url)
        with writing(api.url, "acme") as positions, writing(api.url, "busy") as others:
            wait_until(lambda: positions and others, "they write")
            before = positions[-1]
            output = house.command("projector", "backup", kept)
            after = len(positions)
            wait_until(lambda: len(positions) > after, "they go on")
    promised = {log.tenant: log.last for log in BackupFolder(str(kept)).read().tenants}
    records = {tenant: stored[: promised[tenant]] for tenant, stored in (await records_of(house)).items()}
    rows = rows_of(kept / "tables.db")
    assert f"backed up: 4 tenants, {sum(promised.values())} records" in output
    assert (promised["none-yet"], promised["globex"]) == (0, 301)
    assert before <= promised["acme"] <= positions[after] and promised["acme"] < positions[-1]
    assert [len(rows[table]) for table in ("api_keys", "tenant_limits", "deleted_tenants", "quarantine")] == [1, 1, 1, 1]

    house.destroy()
    house.settings["ARCHIVE_URL"] = archive
    output = house.command("projector", "restore", kept)

    assert f"4 tenants, {sum(promised.values())} records, 0 of them there already" in output
    assert rows_of(house.tables) == rows
    assert await records_of(house) == records
    assert house.command("streams", "verify") == "every log is whole\n"
    with running(server, house.folder, projector=True, AUTH="keys", ARCHIVE_URL=archive) as api:
        key = {"Authorization": f"Bearer {secret}"}
        again = [post(api.url, body(event_id=name, session_id="S1"), **key) for name in ("cold1", "hot1")]
        new = post(api.url, body(event_id="new"), **key)
        assert [(answer.status_code, answer.json()["position"]) for answer in again] == [(200, 2), (200, 303)]
        assert (new.status_code, new.json()["position"]) == (202, promised["acme"] + 1)
        wait_until(lambda: all(entry["lag_records"] == 0 for entry in house.status().values()), "all is applied")
    status = house.status()
    assert [entry["stuck"] for entry in status.values()] == [None] * 4
    assert {tenant: entry["records"] for tenant, entry in status.items()} == promised | {"acme": promised["acme"] + 1}
    assert (status["acme"]["rejected"], status["acme"]["duplicate"], status["none-yet"]["rejected"]) == (1, 3, 1)
    assert int(server.client.hget(keys_of("globex").usage, "today") or 0) == 301
    assert "the tables are what the log says" in house.command("projector", "verify")
    with running(server, house.folder, ARCHIVE_URL=archive) as api:
        assert post(api.url, body(), "deleted").status_code == 410


# -- a second backup -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def log(house: House) -> Any:
    async with Log(Connection(house.server.url), archive_url=f"file://{house.folder}/archive") as log:
        yield log


@pytest.fixture
def store(house: House) -> Iterator[Any]:
    with SqliteStore(str(house.tables), cache_mib=8) as store:
        yield store


async def written(log: Log, worker: Worker, count: int, name: str, *tenants: str) -> None:
    for tenant in tenants or ("acme", "globex"):
        await log.append(tenant, [event(event_id=f"{name}{number}") for number in range(count)])
    await worker.run_to_end()


def files(kept: Path) -> dict[str, int]:
    return {str(path.relative_to(kept)): path.stat().st_ino for path in sorted(kept.rglob("*.parquet"))}


async def test_a_second_backup_adds_what_is_new(house: House, log: Log, worker: Worker, kept: Path) -> None:
    await written(log, worker, 200, "a")
    house.command("projector", "backup", kept)
    before = files(kept)
    await written(log, worker, 5, "b", "acme")

    assert "205 records, 5 of them new" in house.command("projector", "backup", kept).replace("405 records", "205 records")
    assert before.items() <= files(kept).items() and len(files(kept)) == 3
    records, rows = await records_of(house), rows_of(kept / "tables.db")
    house.destroy()
    house.command("projector", "restore", kept)

    assert (await records_of(house), rows_of(house.tables)) == (records, rows)
    assert len(records["acme"]) == 205 and len(rows["events"]) == 405


@one_server
async def test_a_rewritten_log_is_refused_with_its_position(house: House, log: Log, worker: Worker, kept: Path) -> None:
    await written(log, worker, 8, "a")
    house.command("projector", "backup", kept)
    before = (kept / "backup.json").read_bytes()
    client, key = house.server.client, keys_of("acme").log
    entries = client.xrange(key)
    client.delete(key)
    for number, (entry_id, fields) in enumerate(entries):
        client.xadd(key, fields | ({b"event": b"{}"} if number == 5 else {}), id=entry_id)

    output = house.command("projector", "backup", kept, status=1)

    assert "the log of acme has another record at position 6 than the backup: it was rewritten" in output
    assert (kept / "backup.json").read_bytes() == before


@one_server
async def test_a_log_that_lost_its_end_or_everything_is_refused(house: House, log: Log, worker: Worker, kept: Path) -> None:
    await written(log, worker, 8, "a")
    house.command("projector", "backup", kept)
    house.server.client.flushall()

    assert "there is no log of acme, and the backup holds it up to 8" in house.command("projector", "backup", kept, status=1)
    await written(log, worker, 7, "a", "acme", "globex")
    assert "the log of acme ends at position 7" in house.command("projector", "backup", kept, status=1)


@one_server
async def test_a_deleted_tenant_is_not_in_the_next_backup(house: House, log: Log, worker: Worker, kept: Path) -> None:
    await written(log, worker, 8, "a", "acme", "delete-me")
    house.command("projector", "backup", kept)
    house.command("api", "tenant", "delete", "delete-me", "--yes")

    house.command("projector", "backup", kept)

    assert [log.tenant for log in BackupFolder(str(kept)).read().tenants] == ["acme"]
    leaks = [
        path for path in kept.rglob("*") if "delete-me" in path.name or (path.is_file() and b"delete-me" in path.read_bytes())
    ]
    assert leaks == []


@one_server
async def test_a_tenant_that_is_deleted_during_a_backup_is_not_in_it(house: House, log: Log, worker: Worker, kept: Path) -> None:
    """It is deleted just after the tables were copied with it."""
    await written(log, worker, 8, "a", "acme", "delete-me")
    copies = []

    async def copy_tables(path: str) -> None:
        copies.append(house.command("projector", "copy", path))
        if len(copies) == 1:
            house.command("api", "tenant", "delete", "delete-me", "--yes")

    folder = BackupFolder(str(kept))
    with folder.locked():
        created = await create_backup(log, folder, copy_tables, lambda done, total: None)

    assert [log.tenant for log in created.backup.tenants] == ["acme"] and len(copies) == 2
    assert b"delete-me" not in (kept / "tables.db").read_bytes()


# -- killed --------------------------------------------------------------------------------------------------------------


@one_server
@pytest.mark.parametrize("point", BACKUP_POINTS)
async def test_a_killed_backup_leaves_the_backup_before_or_none(
    house: House, log: Log, worker: Worker, kept: Path, point: str
) -> None:
    await written(log, worker, 20, "a")
    house.command("projector", "backup", kept, status=137, FAILPOINT=point)
    assert "is no backup" in house.command("projector", "restore", kept, status=1)
    house.command("projector", "backup", kept)
    records, rows = await records_of(house), rows_of(kept / "tables.db")
    await written(log, worker, 20, "b")
    house.command("projector", "backup", kept, status=137, FAILPOINT=point)

    house.destroy()
    house.command("projector", "restore", kept)

    assert (await records_of(house), rows_of(house.tables)) == (records, rows)


@one_server
async def test_a_backup_killed_before_its_tables_have_their_name_is_complete(
    house: House, log: Log, worker: Worker, kept: Path
) -> None:
    await written(log, worker, 20, "a")
    house.command("projector", "backup", kept)
    old = (kept / "tables.db").read_bytes()
    await written(log, worker, 20, "b")
    house.command("projector", "backup", kept)
    rows = rows_of(kept / "tables.db")
    (kept / "tables.db").rename(kept / "tables.next.db")
    (kept / "tables.db").write_bytes(old)

    house.destroy()
    house.command("projector", "restore", kept)

    assert rows_of(house.tables) == rows
    house.command("projector", "backup", kept)
    assert sorted(os.listdir(kept)) == ["backup.json", "log", "tables.db"]


@one_server
@pytest.mark.parametrize("point", RESTORE_POINTS)
async def test_a_killed_restore_continues_and_gives_the_same(
    house: House, log: Log, worker: Worker, kept: Path, point: str
) -> None:
    await written(log, worker, 20, "a")
    house.command("projector", "backup", kept)
    records, rows = await records_of(house), rows_of(kept / "tables.db")
    house.destroy()
    house.command("projector", "restore", kept, status=137, FAILPOINT=point)

    house.command("projector", "restore", kept)

    assert (await records_of(house), rows_of(house.tables)) == (records, rows)
    assert len(house.server.client.keys("*:dedup:*")) == 40
    assert house.command("streams", "verify") == "every log is whole\n"
    assert "40 records, 40 of them there already" in house.command("projector", "restore", kept)


@one_server
async def test_only_one_backup_at_a_time_is_made_in_a_folder(house: House, kept: Path) -> None:
    folder = BackupFolder(str(kept))
    with folder.locked():
        assert "another backup is being made" in house.command("projector", "backup", kept, status=1)


# -- refused -------------------------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


HARMS: list[tuple[str, Callable[[Path], Any]]] = [
    ("backup.json", flip),
    ("tables.db", flip),
    ("tables.db", os.unlink),
    ("log/tenant=acme/*.parquet", flip),
    ("log/tenant=acme/*.parquet", os.unlink),
    ("log/tenant=globex/manifest.json", lambda path: os.truncate(path, 100)),
    ("log/tenant=globex/manifest.json", os.unlink),
]


@one_server
async def test_a_damaged_backup_is_refused_and_the_file_named(house: House, log: Log, worker: Worker, kept: Path) -> None:
    await written(log, worker, 20, "a")
    house.command("projector", "backup", kept)
    house.destroy()
    for name, harm in HARMS:
        [path] = kept.glob(name)
        content = path.read_bytes()
        harm(path)

        output = house.command("projector", "restore", kept, status=1)

        path.write_bytes(content)
        assert path.name in output or (path.name == "manifest.json" and "misses the records 1 to 20 of globex" in output)
        assert house.server.client.keys() == [] and list(house.folder.iterdir()) == []


@one_server
async def test_other_logs_and_other_tables_are_not_overwritten(house: House, log: Log, worker: Worker, kept: Path) -> None:
    await written(log, worker, 20, "a")
    house.command("projector", "backup", kept)
    house.destroy()
    async with Log(Connection(house.server.url)) as other:
        await other.append("globex", events(3))
    before = {key: house.server.client.dump(key) for key in house.server.client.scan_iter()}

    output = house.command("projector", "restore", kept, status=1)
    assert output.endswith("the log of globex has another record at position 1 than the backup.\n")
    assert {key: house.server.client.dump(key) for key in house.server.client.scan_iter()} == before
    assert not house.tables.exists()

    house.server.client.flushall()
    house.command("api", "key", "create", "acme")
    rows = rows_of(house.tables)
    output = house.command("projector", "restore", kept, status=1)
    assert "has rows in api_keys, and they are not those of the copy; nothing is overwritten" in output
    assert rows_of(house.tables) == rows and house.server.client.keys() == []


@one_server
async def test_a_tenant_that_was_deleted_here_does_not_come_back(house: House, log: Log, worker: Worker, kept: Path) -> None:
    await written(log, worker, 20, "a")
    house.command("projector", "backup", kept)
    house.destroy()
    async with Connection(house.server.url) as connection:
        await delete_log(connection, "acme")

    output = house.command("projector", "restore", kept, status=1).splitlines()

    assert output[-1] == "acme was deleted on this server; `penstock api tenant create acme` lets it begin again."
    assert [line for line in output if "Traceback" in line or line.startswith(" ")] == []
    assert not house.tables.exists()


@one_server
async def test_a_folder_with_other_files_is_not_touched(house: House, kept: Path) -> None:
    kept.mkdir()
    (kept / "letters.part").write_text("mine")
    (kept / "thesis").write_text("mine")

    assert "holds other files, such as thesis" in house.command("projector", "backup", kept, status=1)
    assert sorted(os.listdir(kept)) == ["letters.part", "thesis"]


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
async def test_a_full_disk_makes_no_backup(house: House, log: Log, worker: Worker, kept: Path) -> None:
    await written(log, worker, 2, "a")
    with small_disk(kept):
        (kept / "log").mkdir()
        (kept / "log" / "filler").write_bytes(os.urandom(300_000))
        output = house.command("projector", "backup", kept, status=1)
        assert "disk is full" in output
        (kept / "log" / "filler").write_bytes(os.urandom(50_000))
        await log.append("acme", [event(event_id=str(number), noise=os.urandom(5_000).hex()) for number in range(60)])
        output = house.command("projector", "backup", kept, status=1)
        assert "No space left on device" in output
        assert not (kept / "backup.json").exists()


@one_server
async def test_a_server_that_is_away_makes_no_backup(house: House, kept: Path) -> None:
    async def copy_tables(path: str) -> None:
        house.command("projector", "copy", path)

    folder = BackupFolder(str(kept))
    async with Log(Connection(f"unix://{kept}/absent", budget_seconds=0.1)) as log:
        with folder.locked(), pytest.raises(LogUnavailable):
            await create_backup(log, folder, copy_tables, lambda done, total: None)

    assert not (kept / "backup.json").exists()
