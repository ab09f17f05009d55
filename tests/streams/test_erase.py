"""An erased data subject leaves no byte and stays out.

The tables agree with the log before and after the log is rewritten.
"""

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projector.live.worker import Worker
from projector.projection import project
from projector.rebuild.rebuild import rebuild, rollback
from projector.rebuild.verify import verify
from projector.store.sqlite import SqliteStore
from streams import Connection, Event, Log, Record, control, event_identity, keys_of, make_event
from streams.erasure import delete_log
from streams.erasure.erase import SubjectErasure
from streams.erasure.subject import Subject, SubjectSearch
from streams.tiering import problems, recover
from tests.faults.kinds import ERASE_POINTS
from tests.support.dumps import everything_in
from tests.support.events import event, events
from tests.support.http import environment, opened, process_of, wait_until
from tests.support.proxy import until
from tests.support.servers import Server
from tests.support.tables import dump, dump_memory

pytestmark = pytest.mark.anyio

SALT = "5a17" * 8


# -- the tables ------------------------------------------------------------------------------------------------------------

PEOPLE = ("ann", "bob")
GARBAGE = (b"", b"[]", b"\xff", b'{"user_id":"ann"}', b'{"deep":[{"user_id":"ann"}]}', b'{"user_id":"bob"}')


@st.composite
def entries(draw: st.DrawFn) -> list[tuple[int, bytes]]:
    """Records (version, body) of two people.

    Sessions are shared, times are out of order, names come twice with the same content or with other content. Some events have
    no session, some records are no events, some are control records that drop others.
    """
    without_session = st.builds(
        lambda event_type, second, event_id, **properties: (1, sessionless(event_type, second, event_id, properties)),
        event_type=st.sampled_from(["a", "identify"]),
        second=st.integers(0, 9),
        event_id=st.sampled_from(["u", "v", "w", "z"]),
        user_id=st.sampled_from([*PEOPLE, "null"]),
        anonymous_id=st.sampled_from(["1", "2"]),
    )
    bodies = st.one_of(
        without_session,
        st.builds(
            lambda **members: (1, event(**members).body),
            session_id=st.sampled_from(["S1", "S2", "S3"]),
            event_type=st.sampled_from(["a", "b"]),
            timestamp=st.sampled_from([f"2026-01-01T10:00:0{i}Z" for i in range(4)]),
            event_id=st.one_of(st.none(), st.none(), st.sampled_from(["x", "y"])),
            user_id=st.sampled_from(PEOPLE),
        ),
        st.sampled_from([(1, body) for body in GARBAGE]),
        st.lists(st.integers(1, 20), min_size=1, max_size=5).map(lambda positions: (2, drop(positions))),
    )
    return draw(st.lists(bodies, min_size=1, max_size=30))


def sessionless(event_type: str, second: int, event_id: str, properties: dict[str, Any]) -> bytes:
    """A stored event without a session.

    Some are further apart than the longest gap within a session.
    """
    timestamp = f"2026-01-01T{10 + second // 2}:00:0{second}Z"
    members: dict[str, Any] = {"session_id": "", "event_type": event_type, "timestamp": timestamp, "event_id": event_id}
    return make_event(**members, properties=properties).body


def drop(positions: list[int]) -> bytes:
    return json.dumps({"action": "drop", "positions": positions}).encode()


def numbered(contents: list[tuple[int, bytes]], first: int = 1) -> list[Record]:
    return [Record(position, 1_000 + position, version, body) for position, (version, body) in enumerate(contents, first)]


def with_erasure(log: list[Record], subject: Subject, chance: random.Random) -> list[Record]:
    """A log, then the control records that erase a subject.

    Each names at most three positions; their order is random.
    """
    search = SubjectSearch("acme", subject)
    for record in log:
        search.match(record)
    search.salt = SALT
    for record in log:
        search.decide(record)
    remaining = search.new_positions
    chance.shuffle(remaining)
    log = list(log)
    while remaining:
        positions, remaining = sorted(remaining[:3]), remaining[3:]
        names = [search.to_erase[position] for position in positions]
        control_record = control.Erase(SALT, subject.digest(SALT), len(log), positions, names)
        log.append(Record(len(log) + 1, 1_000 + len(log), 2, control._encode(control_record)))
    return log


def rewritten(log: list[Record], chance: random.Random, share: float = 1.0) -> list[Record]:
    """A log in which a share of the named records is rewritten."""
    erased = {
        position
        for at_position in project("acme", 0, log, len(log)).control_records
        if isinstance(at_position.control_record, control.Erase)
        for position in at_position.control_record.positions
    }
    return [control.erased_from(record) if record.position in erased and chance.random() < share else record for record in log]


def tables_of(log: list[Record], chance: random.Random) -> dict[str, list[tuple[Any, ...]]]:
    with SqliteStore(":memory:") as store:
        after = 0
        while after < len(log):
            through = min(len(log), after + chance.randint(1, 12))
            assert store.apply([project("acme", after, log[after:through], through)]) == [True]
            after = through
        return dump_memory(store)


@settings(deadline=None, max_examples=150)
@given(before=entries(), between=entries(), after=entries(), seed=st.integers(0, 2**32))
def test_the_tables_do_not_depend_on_how_much_of_the_log_is_rewritten(
    before: list[tuple[int, bytes]], between: list[tuple[int, bytes]], after: list[tuple[int, bytes]], seed: int
) -> None:
    chance = random.Random(seed)
    log = with_erasure(numbered(before), Subject("user_id", "ann"), chance)
    log += numbered(between, len(log) + 1)
    log = with_erasure(log, Subject("session_id", "S2"), chance)
    log = with_erasure(log, Subject("user_id", "ann"), chance)  # records since the first erasure
    log += numbered(after, len(log) + 1)

    whole = tables_of(log, chance)

    assert tables_of(rewritten(log, chance), chance) == whole
    assert tables_of(rewritten(log, chance, 0.5), chance) == whole
    [(_, position, _, late, dropped, erased)] = whole["checkpoints"]
    assert len(whole["events"]) + len(whole["quarantine"]) + late + dropped + erased == position == len(log)
    names = {row[2] for row in whole["suppressions"]}
    assert not [row for row in whole["events"] if control.salted_name(SALT, row[2], row[3]) in names]
    assert min(late, dropped, erased) >= 0 and erased == sum(row[2] == "erased" for row in whole["tombstones"])


@settings(deadline=None, max_examples=100)
@given(before=entries(), after=entries(), seed=st.integers(0, 2**32))
def test_sessions_are_the_fold_of_the_remaining_events(
    before: list[tuple[int, bytes]], after: list[tuple[int, bytes]], seed: int
) -> None:
    chance = random.Random(seed)
    log = with_erasure(numbered(before), Subject("user_id", "ann"), chance)
    end_of_erasure = len(log)
    log += numbered(after, end_of_erasure + 1)

    tables = tables_of(log, chance)

    assert not [row for row in tables["events"] if row[1] <= end_of_erasure and json.loads(row[12])["user_id"] == "ann"]
    assert not [row for row in tables["quarantine"] if row[1] <= end_of_erasure and row[6] in GARBAGE[3:5]]
    sessions: dict[str, list[Any]] = {}
    for row in tables["events"]:
        if row[5]:
            sessions.setdefault(row[5], []).append(row)
    expected = []
    for rows in sessions.values():
        first, last = min(rows, key=lambda row: (row[8], row[1])), max(rows, key=lambda row: (row[8], row[1]))
        first_position = min(row[1] for row in rows)
        assert {row[13] for row in rows} == {first_position}
        expected.append((first_position, first[5], first[8], last[8], len(rows), first[6], last[6]))
    actual = [(row[1], row[2], row[3], row[5], row[7], row[8], row[9]) for row in tables["event_sessions"] if not row[12]]
    assert actual == sorted(expected)
    assert {row[13] for row in tables["events"] if not row[5]} - {0} == {row[1] for row in tables["event_sessions"] if row[12]}


# -- bytes -----------------------------------------------------------------------------------------------------------------

CANARY = "c4n4ry"  # in every event of ann


def command(server: Server, folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command of Penstock to its end."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=environment(REDIS_URL=server.url, DATA_DIR=folder, HOT_SECONDS=0, **variables),
        capture_output=True,
        text=True,
        timeout=60,
    )


def erase(
    server: Server, folder: Path, *selector: str, tenant: str = "acme", **variables: str
) -> subprocess.CompletedProcess[str]:
    return command(server, folder, "streams", "erase", tenant, *(selector or ("--where", "user_id=ann")), "--yes", **variables)


def about_ann(count: int, **members: Any) -> list[Event]:
    """Events of ann, some of them in sessions of bob.

    With and without an id; the note holds characters that JSON escapes.
    """
    common = {"user_id": "ann", "note": f'{CANARY} "é\n"'} | members
    return [
        event(session_id=f"S{i % 4}", timestamp=f"2026-01-02T{i % 24:02}:{i % 60:02}:00Z", n=i, **common)
        if i % 3
        else event(session_id=f"{CANARY}-{i % 2}", event_type=f"{CANARY} type", event_id=f"{CANARY}-id-{i}", **common)
        for i in range(count)
    ]


async def fill_with_ann(server: Server, log: Log, store: SqliteStore, worker: Worker, folder: Path, tenant: str = "acme") -> None:
    """Fill a log with all kinds of records about ann.

    Rows, sessions, late duplicates, conflicts, a record that is no event, previous tables, an archive of several segments,
    and records that are still on the server.
    """
    await log.append(tenant, [*events(40, sessions=4), *about_ann(30)])
    expire_dedup_keys(server, tenant)
    await log.append(tenant, [*events(10, sessions=4), *about_ann(10), event(session_id="S1", n=99, user_id="bob")])
    same_id = event(session_id="S9", event_id=f"{CANARY}-id-0", note="of another user")
    server.client.delete(keys_of(tenant).dedup + event_identity(tenant, same_id)[0])
    await log.append(tenant, [same_id])
    last = await log.last_position(tenant)
    raw = {"event": f'{{"user_id":"ann","x":"{CANARY}"}}', "received_at_us": 7, "version": 1}
    server.client.xadd(keys_of(tenant).log, raw, id=f"{last + 1}-0")
    await log.append(tenant, [event(session_id="S9", n=i, event_id=f"{i}") for i in range(3)])
    await worker.run_to_end()
    await rebuild(log, store)
    assert command(server, folder, "streams", "archive", "--once").returncode == 0
    late = [event(session_id="S2", event_id=f"{CANARY} {i}", user_id="ann", note=CANARY) for i in range(5)]
    await log.append(tenant, [*late, event(session_id="S2", user_id="bob", late=1)])
    await worker.run_to_end()


def expire_dedup_keys(server: Server, tenant: str) -> None:
    server.client.delete(*server.client.scan_iter(match=f"{keys_of(tenant).dedup}*", count=10_000))


def places_with(server: Server, folder: Path, *words: str) -> list[str]:
    """The places that hold one of the words in UTF-8.

    Looks at keys and values of the server, its files, the archive and the tables.
    """
    patterns = [word.encode() for word in words]
    places = [f"key {content[:80]!r}" for content in everything_in(server) if any(word in content for word in patterns)]
    archive = Path(folder, "archive")
    for file in (*server.folder.rglob("*"), *archive.rglob("*"), *folder.glob("penstock.db*")):
        if file.is_file() and any(word in file.read_bytes() for word in patterns):
            places.append(f"file {file}")
    for file in archive.rglob("*.parquet"):  # segments are compressed
        if any(word in repr(duckdb.read_parquet(str(file)).fetchall()) for word in words):
            places.append(f"segment {file}")
    return places


def hashes_of_ann(tenant: str) -> list[str]:
    return [event_identity(tenant, sent)[0] for sent in about_ann(30)]


class Installation(NamedTuple):
    """A server, a log and tables that hold records about ann."""

    server: Server
    log: Log
    store: SqliteStore
    worker: Worker
    folder: Path


@pytest.fixture
async def installation(own_server: Server, tmp_path: Path) -> AsyncIterator[Installation]:
    """An installation with records about ann on its own server."""
    folder = tmp_path / "data"
    folder.mkdir()
    async with Log(Connection(own_server.url), archive_url=f"file://{folder}/archive") as log:
        with SqliteStore(str(folder / "penstock.db"), cache_mib=8) as store:
            worker = Worker(log, store, lease_owner="test:1", lease_seconds=0.5)
            await fill_with_ann(own_server, log, store, worker, folder)
            yield Installation(own_server, log, store, worker, folder)


async def test_no_file_or_key_holds_a_byte_of_an_erased_subject(installation: Installation) -> None:
    server, log, store, _, folder = installation
    words = (CANARY, *hashes_of_ann("acme"))
    before = " ".join(places_with(server, folder, *words))
    rows = [row for row in dump(store)["events"] if CANARY not in repr(row) and row[7] != "2026-01-01T10:00:00Z"]
    assert all(place in before for place in (":dedup:acme:", "appendonly", "segment", "penstock.db")), before

    erasure = erase(server, folder)
    vacuumed = command(server, folder, "projector", "vacuum")

    assert erasure.returncode == vacuumed.returncode == 0, erasure.stdout + erasure.stderr + vacuumed.stdout + vacuumed.stderr
    wait_until(lambda: not places_with(server, folder, *words), f"no trace is left in {places_with(server, folder, *words)}")
    assert [difference async for difference in verify(log, store)] == []
    assert [problem async for problem in problems(log)] == []
    after = dump(store)
    assert {row[1] for row in rows} <= {row[1] for row in after["events"]}
    [(_, position, _, late, dropped, erased)] = after["checkpoints"]
    assert erased == 30 + 10 + 1 + 1 + 5 and dropped == 1 and late == 10
    assert len(after["events"]) + len(after["quarantine"]) + late + dropped + erased == position
    await rebuild(log, store)
    assert dump(store) == after
    await rollback(log, store)
    assert dump(store) == after
    assert places_with(server, folder, CANARY) == []


async def test_trimmed_records_of_an_erased_subject_leave_the_servers_files_too(own_server: Server, tmp_path: Path) -> None:
    """Trimming only marks an entry; its bytes stay in memory and files."""
    async with Log(Connection(own_server.url), archive_url=f"file://{tmp_path}/archive") as log:
        with SqliteStore(str(tmp_path / "penstock.db"), cache_mib=8) as store:
            await log.append("acme", [*about_ann(6), *events(3)])
            await Worker(log, store, lease_owner="test:1", lease_seconds=0.5).run_to_end()
            assert command(own_server, tmp_path, "streams", "archive", "--once").returncode == 0
            assert own_server.client.xlen(keys_of("acme").log) == 1

    assert erase(own_server, tmp_path).returncode == command(own_server, tmp_path, "projector", "vacuum").returncode == 0

    wait_until(
        lambda: not places_with(own_server, tmp_path, CANARY), f"no trace is left in {places_with(own_server, tmp_path, CANARY)}"
    )


async def test_erased_events_that_are_sent_again_never_return_to_the_tables(installation: Installation) -> None:
    server, log, store, worker, folder = installation
    expire_dedup_keys(server, "acme")
    assert erase(server, folder).returncode == 0
    last = await log.last_position("acme")

    receipts = await log.append("acme", about_ann(30))
    others = await log.append("acme", [event(session_id="else", event_id=f"{CANARY}-id-3")])

    assert {receipt.status for receipt in (*receipts, *others)} == {"duplicate"}
    assert [receipt.position for receipt in receipts] == list(range(41, 71))
    assert others[0].position == 44
    assert await log.last_position("acme") == last
    server.client.delete(keys_of("acme").suppressed)  # as if the server had lost it
    assert {receipt.status for receipt in await log.append("acme", about_ann(30))} == {"accepted"}
    await worker.run_to_end()
    assert not [row for row in dump(store)["events"] if CANARY in repr(row)]
    assert dump(store)["checkpoints"][0][1] == last + 30 and not dump(store)["quarantine"]
    assert [difference async for difference in verify(log, store)] == []
    assert erase(server, folder).returncode == 0
    await worker.run_to_end()
    assert {receipt.status for receipt in await log.append("acme", about_ann(30))} == {"duplicate"}
    assert [difference async for difference in verify(log, store)] == []


# -- interrupted, refused, under load --------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ERASE_POINTS)
async def test_an_erasure_that_was_killed_is_finished_by_the_next_run(installation: Installation, point: str) -> None:
    server, log, store, worker, folder = installation

    await log.append("acme", [event(session_id="S1", event_id=f"{i}", n=i) for i in range(600)])  # more than one call copies

    assert erase(server, folder, FAILPOINT=point).returncode == 137
    await worker.run_to_end()
    server.client.delete(keys_of("acme").archive_lease)  # as if the lease had expired
    assert (await log.append("acme", [event(session_id="S1", event_id=point)]))[0].status == "accepted"
    finished = erase(server, folder)
    await worker.run_to_end()
    assert command(server, folder, "projector", "vacuum").returncode == 0

    assert finished.returncode == 0, finished.stderr
    wait_until(lambda: not places_with(server, folder, CANARY), f"no trace is left in {places_with(server, folder, CANARY)}")
    assert not server.client.exists(keys_of("acme").rewrite)
    assert [difference async for difference in verify(log, store)] == []
    assert [problem async for problem in problems(log)] == []
    assert dump(store)["checkpoints"][0][5] == 47
    assert {receipt.status for receipt in await log.append("acme", about_ann(30))} == {"duplicate"}


async def test_a_server_without_memory_keeps_its_log_and_the_command_says_so(installation: Installation) -> None:
    server, _, _, _, folder = installation
    assert erase(server, folder, FAILPOINT="between_control_records").returncode == 137
    server.client.delete(keys_of("acme").archive_lease)
    before = server.client.xrange(keys_of("acme").log)
    server.client.config_set("maxmemory", 1)

    full = erase(server, folder)
    after = server.client.xrange(keys_of("acme").log)
    server.client.config_set("maxmemory", 0)

    assert full.returncode == 1 and "memory" in full.stderr and "Traceback" not in full.stderr, full.stderr
    assert after == before
    assert erase(server, folder).returncode == 0


async def test_projectors_and_writers_continue_during_an_erasure(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.erasure.erase.COPY_RECORDS", 7)
    stop = asyncio.Event()
    variables = {"REDIS_URL": server.url, "DATA_DIR": str(tmp_path)}
    path = str(tmp_path / "penstock.db")
    async with Log(Connection(server.url), archive_url=f"file://{tmp_path}/archive") as log:
        await log.append("acme", [*events(500), *about_ann(60)])

        async def write(number: int) -> int:
            sent = 0
            while not stop.is_set():
                [receipt] = await log.append("acme", [event(session_id=f"S{sent % 4}", event_id=f"{number} {sent}")])
                assert receipt.status == "accepted"
                sent += 1
            return sent

        with process_of(("-m", "projector", "run"), tmp_path, "projector.out", **variables), SqliteStore(path) as store:
            await until(lambda: store.tables().checkpoint("acme").position == 560)
            writing = [asyncio.create_task(write(number)) for number in range(3)]
            for _ in range(3):
                erasure = SubjectErasure(log, "acme", Subject("user_id", "ann"))
                async with erasure.lease():
                    await erasure.find_records(lambda done, total: None)
                    last = await erasure.append_control_records()
                    rewritten_log = await erasure.rewrite(lambda done, total: None)
                await log.append("acme", [event(event_id=f"{CANARY} {last}", user_id="ann", session_id="S1")])
                assert rewritten_log.entries in (60, 1)
            stop.set()
            written = sum(await asyncio.gather(*writing))
            end = await log.last_position("acme")
            await until(lambda: store.tables().checkpoint("acme").position == end)

            assert end == 560 + written + 3 + 3
            assert [difference async for difference in verify(log, store)] == []
            assert [problem async for problem in problems(log)] == []
            rows = dump(store)["events"]
            assert [row[4] for row in rows if CANARY in repr(row)] == [f"{CANARY} {last}"]  # sent after the last erasure
            assert len(rows) == 500 + written + 1


async def test_a_projector_with_old_tables_reaches_the_same_rows(installation: Installation, tmp_path: Path) -> None:
    server, log, store, worker, folder = installation
    yesterday = str(tmp_path / "yesterday.db")
    with SqliteStore(str(tmp_path / "late.db"), cache_mib=8) as late:
        late.apply([project("acme", 0, [record async for page in log.read("acme", 0, through=45) for record in page], 45)])
        store.execute("VACUUM INTO ?", (yesterday,))
        assert erase(server, folder).returncode == 0
        await worker.run_to_end()
        for name in ("late.db", "yesterday.db"):  # the record at both checkpoints, 45 and the last, was erased
            with SqliteStore(str(tmp_path / name), cache_mib=8) as other:
                await Worker(log, other, lease_owner="test:2", lease_seconds=0.5).run_to_end()
                assert dump(other) == dump(store)


async def test_suppressed_names_survive_a_recovery_and_an_import_of_the_log(installation: Installation, tmp_path: Path) -> None:
    server, log, _, worker, folder = installation
    assert erase(server, folder).returncode == 0
    await worker.run_to_end()
    kept = server.client.hgetall(keys_of("acme").suppressed)
    exported = command(server, folder, "streams", "export", "acme", "--out", "acme.ndjson")
    assert exported.returncode == 0 and len(kept) > 30

    server.client.delete(keys_of("acme").suppressed)
    await recover(log, "acme", dedup_window_seconds=3_600)
    assert server.client.hgetall(keys_of("acme").suppressed) == kept
    server.client.flushall()
    imported = command(server, folder, "streams", "import", "acme.ndjson", ARCHIVE_URL="none")

    assert imported.returncode == 0, imported.stderr
    assert server.client.hgetall(keys_of("acme").suppressed) == kept
    assert {receipt.status for receipt in await log.append("acme", about_ann(30))} == {"duplicate"}
    await delete_log(log.connection, "acme")
    assert not server.client.exists(keys_of("acme").suppressed)


# -- the command -----------------------------------------------------------------------------------------------------------


async def test_the_command_asks_first_and_says_what_it_did(server: Server, log: Log, tmp_path: Path) -> None:
    await log.append("acme", [*events(5), event(session_id="erased", n=7, active=True), event(session_id="stays", n=1)])
    erase_command = ("streams", "erase", "acme")

    unknown_subject = command(server, tmp_path, *erase_command, "--where", "user_id=ann", "--yes")
    without_yes = command(server, tmp_path, *erase_command, "--session", "erased")
    unknown_tenant = command(server, tmp_path, "streams", "erase", "other", "--session", "erased", "--yes")
    with_yes = command(server, tmp_path, *erase_command, "--session", "erased", "--yes")
    again = command(server, tmp_path, *erase_command, "--session", "erased", "--yes")

    assert unknown_subject.returncode == 0 and "No record of acme" in unknown_subject.stdout
    assert without_yes.returncode == 1 and "1 records of acme" in without_yes.stdout and "position 6" in without_yes.stdout
    assert unknown_tenant.returncode == 1 and "other has no log" in unknown_tenant.stderr
    assert with_yes.returncode == 0 and "position 8" in with_yes.stdout and "1 records on the server" in with_yes.stdout
    assert again.returncode == 0 and "No further record" in again.stdout
    assert [record.version for page in [page async for page in log.read("acme", 0)] for record in page] == [1] * 5 + [2, 1, 2]
    for bad_arguments in (("--yes",), ("--session", "a", "--where", "b=c"), ("--where", "b"), ("--where", "=c")):
        assert command(server, tmp_path, *erase_command, *bad_arguments).returncode == 2


@pytest.mark.parametrize(
    ("member", "value", "positions"),
    [
        ("session_id", "S1", {1, 2}), ("event_type", "view", {1}), ("event_id", "e", {2}), ("user_id", "7", {1, 2}),
        ("user_id", "07", set()), ("active", "true", {1}), ("active", "1", {2}), ("nothing", "null", {1}), ("user_id", "{}", set()),
    ],
)  # fmt: skip
def test_the_value_of_a_subject_is_compared_as_text_or_as_json(member: str, value: str, positions: set[int]) -> None:
    log = [
        Record(1, 1, 1, event(event_type="view", user_id=7, active=True, nothing=None).body),
        Record(2, 2, 1, event(event_id="e", user_id="7", active=1.0).body),
        Record(3, 3, 1, event(session_id="S2", user_id={}, deep={"user_id": 7, "session_id": "S1"}).body),
        Record(4, 4, 2, control._encode(control.Drop([3]))),
    ]
    search = SubjectSearch("acme", Subject(member, value))
    for step in (search.match, search.decide):
        for record in log:
            step(record)

    assert set(search.new_positions) == positions


async def test_a_receipt_says_that_an_event_was_erased(server: Server, tmp_path: Path) -> None:
    async with opened(server, tmp_path) as app:
        await app.post([{"session_id": "S1", "event_type": "a", "timestamp": "2026-01-01T10:00:00Z", "user_id": "ann"}])
        await app.project()
        assert erase(server, tmp_path).returncode == 0
        before = await app.get("/api/receipts/1")
        await app.project()

        after = await app.get("/api/receipts/1")

        assert before.json()["status"] == "projected"
        assert after.json() == {"status": "erased", "event_hash": None, "position": 1}
        assert (await app.get("/api/receipts/2")).status_code == 404
        assert (await app.get("/api/sessions/S1")).status_code == 404
