"""Cold records move to the archive, and every read still finds them."""

import asyncio
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projector.live.worker import Worker
from projector.rebuild.rebuild import RebuildRefused, rebuild
from projector.rebuild.verify import verify
from projector.status import status
from projector.store.sqlite import SqliteStore
from streams import Connection, Log, Record, keys_of
from streams.archive import Archive
from streams.archive.files import Files
from streams.archive.manifest import Segment, kept_of
from streams.archive.segments import pack, unpack
from streams.erasure import delete_log
from streams.errors import ArchiveMoved, DamagedArchive, Gap
from streams.tiering import Archiver, HistoryDiffers, problems, recover
from tests.support.archives import archiver
from tests.support.events import event, events, numbered
from tests.support.http import ROOT, environment
from tests.support.records import records_of
from tests.support.servers import Server

pytestmark = pytest.mark.anyio

TENANT = "acme"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/archive"


@pytest.fixture
async def log(server: Server, url: str) -> object:
    async with Log(Connection(server.url), archive_url=url) as log:
        yield log


async def fill(log: Log, worker: Worker, count: int) -> list[Record]:
    """Append and apply `count` events; return their records."""
    await log.append(TENANT, events(count))
    await worker.run_to_end()
    return await records_of(log)


def files(url: str, tenant: str = TENANT) -> list[Path]:
    return sorted(Path(url.removeprefix("file://"), f"tenant={tenant}").glob("*.parquet"))


# -- segments ------------------------------------------------------------------------------------------------------------

bodies = st.one_of(
    st.binary(max_size=60),
    st.builds(
        lambda session, kind, name, number: event(session_id=session, event_type=kind, event_id=name, n=number).body,
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20),
        st.sampled_from(["view", "klick ❤"]),
        st.none() | st.just("e1"),
        st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False),
    ),
    st.just(b'{"session_id":"S","event_type":"t","timestamp":"x","properties":{}}'),  # members in an unusual order
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(bodies, st.integers(0, 2), st.integers(0, 2**52)), min_size=1, max_size=20), st.integers(0, 20))
def test_a_segment_returns_every_record_unchanged(contents: list[tuple[bytes, int, int]], after: int) -> None:
    records = [Record(position, received, version, body) for position, (body, version, received) in enumerate(contents, 1)]

    packed = pack(records)

    assert [record for page in unpack(io.BytesIO(packed), after) for record in page] == records[after:]


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60))
def test_merges_leave_few_segments_and_rewrite_each_record_seldom(counts: list[int]) -> None:
    segments: list[Segment] = []
    written = last = 0
    for count in counts:
        kept = kept_of(segments, count, count * 100)
        first = segments[kept].first if kept < len(segments) else last + 1
        last += count
        segments = [*segments[:kept], Segment(first, last, 1, (last - first + 1) * 100, "")]
        written += last - first + 1

    assert len(segments) <= max(1, last).bit_length()
    assert written <= last * (last.bit_length() + 1)


# -- moving ----------------------------------------------------------------------------------------------------------------


async def test_cold_records_move_to_the_archive_and_every_read_finds_them(
    server: Server, log: Log, worker: Worker, url: str
) -> None:
    before = await fill(log, worker, 1_200)

    archived = await archiver(log).run_once()

    assert (archived.records, archived.trimmed, archived.stuck) == (1_199, 1_199, {})
    assert server.client.xlen(keys_of(TENANT).log) == 1  # the newest record always stays
    assert await records_of(log) == before
    assert await records_of(log, after=700) == before[700:]
    assert [record async for page in log.read(TENANT, 10, through=20) for record in page] == before[10:20]
    assert await log.find(TENANT, 5) == before[4] and await log.find(TENANT, 1_200) == before[-1]
    [summary] = await log.summaries()
    assert (summary.last, summary.held, summary.has_gap) == (1_200, 1, False)
    assert [problem async for problem in problems(log)] == []


async def test_a_lookup_of_many_positions_reads_each_segment_once(
    log: Log, worker: Worker, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await fill(log, worker, 1_000)
    await log.append("globex", events(40))
    await worker.run_to_end()
    await archiver(log).run_once()
    await log.append(TENANT, [event(event_id=f"more {number}") for number in range(100)])
    await worker.run_to_end()
    await archiver(log).run_once()
    assert len(files(url)) == 2
    reads: list[str] = []
    get = Files.get

    def counted(self: Files, path: str) -> bytes | None:
        reads.append(path)
        return get(self, path)

    monkeypatch.setattr(Files, "get", counted)
    positions = [5, 900, 0, 1_050, 5, 1_100, 5_000, *range(100, 200)]

    records = await log.find_each([(TENANT, position) for position in positions] + [("globex", 7), ("unknown", 1)])
    segment_reads = [path for path in reads if path.endswith(".parquet")]

    expected = [*before, *await records_of(log, after=1_000)]
    assert records[:-2] == [expected[position - 1] if 0 < position <= 1_100 else None for position in positions]
    assert [record and record.position for record in records[-2:]] == [7, None]
    assert sorted(segment_reads) == sorted(map(str, [*files(url), *files(url, "globex")]))


async def test_a_log_continues_after_its_archived_records(log: Log, worker: Worker) -> None:
    before = await fill(log, worker, 50)
    await archiver(log).run_once()

    receipts = await log.append(TENANT, [*events(50), event(session_id="new")])
    await worker.run_to_end()
    again = await archiver(log).run_once()

    assert [receipt.status for receipt in receipts] == ["duplicate"] * 50 + ["accepted"]
    assert receipts[-1].position == 51
    assert again.records == 1
    assert (await records_of(log))[:50] == before and len(await records_of(log)) == 51


async def test_hot_records_stay_on_the_server(log: Log, worker: Worker) -> None:
    await fill(log, worker, 100)

    young = await archiver(log, hot_seconds=3_600).run_once()
    few = await archiver(log, hot_seconds=3_600, hot_records=30).run_once()

    assert (young.records, few.records) == (0, 70)


async def test_records_that_a_group_has_not_acknowledged_stay_on_the_server(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await worker.sweep()
    await log.append(TENANT, events(100))
    waiting = await archiver(log).run_once()
    server.client.xreadgroup(f"projector:{store.tables_id}", "projector", {keys_of(TENANT).log: ">"}, count=40)
    pending = await archiver(log).run_once()
    await worker.run_to_end()
    server.client.sadd(keys_of(TENANT).groups, "projector:another")
    not_begun = await archiver(log).run_once()
    server.client.srem(keys_of(TENANT).groups, "projector:another")

    assert (waiting.records, pending.records, not_begun.records) == (0, 0, 0)
    assert (await archiver(log).run_once()).records == 99


async def test_a_few_records_are_not_archived_until_there_are_more(log: Log, worker: Worker, url: str) -> None:
    await fill(log, worker, 100)

    assert (await archiver(log).run_once(eager=False)).records == 0
    await log.append(TENANT, [event(event_id=f"more {number}") for number in range(1_000)])
    await worker.run_to_end()
    assert (await archiver(log).run_once(eager=False)).records == 1_099
    assert len(files(url)) == 1


async def test_many_passes_leave_few_files(log: Log, worker: Worker, url: str) -> None:
    for number in range(20):
        await log.append(TENANT, [event(event_id=f"{number}-{i}") for i in range(10)])
        await worker.run_to_end()
        await archiver(log).run_once()

    assert len(files(url)) <= 6
    assert [record.position for record in await records_of(log)] == list(range(1, 201))
    assert [problem async for problem in problems(log)] == []


@pytest.mark.parametrize(
    "fields",
    [
        {"odd": b"\xff\0"},
        {"event": "x", "received_at_us": "1" * 19, "version": "1"},
        {"event": "x", "received_at_us": "1", "version": "99999"},
        {"event": "x", "received_at_us": "-1", "version": "1"},
        {"event": "x", "received_at_us": "1", "version": "1", "more": "y"},
    ],
    ids=range(5),
)
async def test_entries_written_by_hand_are_archived_too(server: Server, log: Log, worker: Worker, fields: dict[str, str]) -> None:
    await fill(log, worker, 3)
    server.client.xadd(keys_of(TENANT).log, fields, id="4-0")
    await log.append(TENANT, [event(session_id="new")])
    await worker.run_to_end()
    before = await records_of(log)

    archived = await archiver(log).run_once()

    assert archived.stuck == {}
    assert await records_of(log) == before and len(before) == 5
    assert server.client.xlen(keys_of(TENANT).log) == 1


async def test_the_duckdb_query_of_the_docs_reads_the_archive(log: Log, worker: Worker, url: str) -> None:
    await log.append(TENANT, [event(event_type="view", event_id=f"v{number}") for number in range(7)])
    await log.append(TENANT, [event(event_type="click", event_id=f"c{number}", button="buy") for number in range(3)])
    await worker.run_to_end()
    await archiver(log).run_once()
    [query] = re.findall(r"```sql\n-- duckdb\n(.*?);\n```", (ROOT / "docs/how-to/archive.md").read_text(), re.DOTALL)
    query = query.replace("data/archive", url.removeprefix("file://"))

    rows = duckdb.execute(query).fetchall()
    buttons = duckdb.execute(
        f"SELECT DISTINCT properties->>'button' FROM '{files(url)[0]}' WHERE event_type = 'click'"
    ).fetchall()

    assert [row[:2] for row in rows] == [("view", 7), ("click", 2)]  # the newest record is hot
    assert buttons == [("buy",)]


# -- interruptions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["after_archive_before_trim", "between_trims", "between_trims:2"])
async def test_an_archiver_that_was_killed_leaves_no_gap_and_no_overlap(
    server: Server, log: Log, worker: Worker, url: str, point: str, tmp_path: Path
) -> None:
    before = await fill(log, worker, 12_000)

    def archive_once(**failpoints: str) -> subprocess.CompletedProcess[str]:
        variables = environment(REDIS_URL=server.url, DATA_DIR=tmp_path, ARCHIVE_URL=url, HOT_SECONDS=0, **failpoints)
        command = [sys.executable, "-m", "streams", "archive", "--once"]
        return subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=60)

    killed = await asyncio.to_thread(archive_once, FAILPOINT=point)
    assert killed.returncode == 137, killed.stderr
    assert await records_of(log) == before
    server.client.delete(keys_of(TENANT).archive_lease)  # as if the lease had expired
    again = await asyncio.to_thread(archive_once)

    assert again.returncode == 0, again.stderr
    assert await records_of(log) == before
    assert server.client.xlen(keys_of(TENANT).log) == 1
    assert [problem async for problem in problems(log)] == []


async def test_an_old_unused_file_in_the_archive_is_removed(log: Log, worker: Worker, url: str) -> None:
    await fill(log, worker, 20)
    await archiver(log).run_once()
    segments = files(url)
    old, young = (segments[0].with_name(f"{number:020}-{number:020}.parquet") for number in (777, 888))
    for path in (old, young):
        path.write_bytes(b"half of a segment")
    os.utime(old, (0, 0))
    os.utime(segments[0], (0, 0))
    await log.append(TENANT, [event(session_id="new")])
    await worker.run_to_end()

    await archiver(log).run_once()

    assert not old.exists() and young.exists() and segments[0] in files(url)
    assert len(await records_of(log)) == 21


@pytest.mark.parametrize("name", ["manifest.json", "manifest.before.json"])
@pytest.mark.parametrize("content", [b"{", None], ids=["damaged", "missing"])
async def test_no_file_is_removed_while_a_manifest_cannot_be_read(
    log: Log, worker: Worker, url: str, name: str, content: bytes | None
) -> None:
    records = await fill(log, worker, 30)
    archive = Archive(url)
    archive.add(TENANT, records[:20])
    archive.add(TENANT, records[20:21])
    path = files(url)[0].with_name(name)
    path.with_name("orphan.parquet").write_bytes(b"")
    before = files(url)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)

    assert archive.tidy(TENANT, age_seconds=0) == 0
    assert files(url) == before and len(before) == 3


async def test_a_tenant_has_one_archiver_at_a_time(server: Server, log: Log, worker: Worker) -> None:
    await fill(log, worker, 20)
    server.client.set(keys_of(TENANT).archive_lease, "another", px=60_000)

    assert (await archiver(log).run_once()).records == 0
    server.client.delete(keys_of(TENANT).archive_lease)
    assert (await archiver(log).run_once()).records == 19


async def test_a_manifest_that_another_archiver_changed_is_not_overwritten(log: Log, worker: Worker, url: str) -> None:
    records = await fill(log, worker, 30)
    archive = Archive(url)
    archive.add(TENANT, records[:10])

    with pytest.raises(ArchiveMoved):
        archive.add(TENANT, records[:20])

    assert archive.manifest(TENANT).through == 10


@pytest.mark.parametrize(
    "damage",
    [
        lambda records: records[:-1],
        lambda records: [*records[:2_999], Record(3_000, 3_000, 1, b"other")],
        lambda records: [*records, Record(3_001, 3_001, 1, b"more")],
    ],
    ids=["a record is missing", "a record differs", "a record too many"],
)
def test_records_that_a_segment_does_not_return_are_not_archived(
    url: str, monkeypatch: pytest.MonkeyPatch, damage: Callable[[list[Record]], list[Record]]
) -> None:
    records = [Record(position, position, 1, event(n=position).body) for position in range(1, 3_001)]
    monkeypatch.setattr("streams.archive.store.pack", lambda records: pack(damage(records)))

    with pytest.raises(DamagedArchive):
        Archive(url).add(TENANT, records)

    assert Archive(url).manifest(TENANT).segments == []


async def test_reads_see_the_whole_log_while_segments_merge_and_records_move(log: Log, worker: Worker) -> None:
    stop = asyncio.Event()

    async def read() -> list[int]:
        counts: list[int] = []
        while not stop.is_set():
            positions = [record.position for record in await records_of(log)]
            assert positions == list(range(1, len(positions) + 1))
            assert not counts or len(positions) >= counts[-1]
            counts.append(len(positions))
        return counts

    reading = [asyncio.create_task(read()) for _ in range(2)]
    for number in range(15):
        await log.append(TENANT, [event(event_id=f"{number}-{i}") for i in range(60)])
        await worker.run_to_end()
        await archiver(log).run_once()
    stop.set()

    assert all(len(counts) > 2 for counts in await asyncio.gather(*reading))


# -- the tables ------------------------------------------------------------------------------------------------------------


async def test_tables_are_rebuilt_and_verified_from_archive_and_server(log: Log, store: SqliteStore, worker: Worker) -> None:
    await fill(log, worker, 3_000)
    await archiver(log).run_once()
    await log.append(TENANT, [event(session_id="new")])
    await worker.run_to_end()

    await rebuild(log, store)

    assert [difference async for difference in verify(log, store)] == []
    assert store.tables().checkpoint(TENANT).position == 3_001
    [acme] = await status(log, store)
    assert (acme.rows, acme.lag_records, acme.stuck) == (3_001, 0, None)


async def test_a_parallel_rebuild_reads_the_archive_too(
    log: Log, store: SqliteStore, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(log, worker, 3_000)
    await archiver(log).run_once()
    monkeypatch.setattr("projector.rebuild.replay.PROCESS_RECORDS", 1)

    await rebuild(log, store)

    assert [difference async for difference in verify(log, store)] == []
    assert store.tables().checkpoint(TENANT).position == 3_000


async def test_a_new_database_is_filled_from_archive_and_server(log: Log, worker: Worker, tmp_path: Path) -> None:
    await fill(log, worker, 7_000)
    await archiver(log).run_once()

    with SqliteStore(str(tmp_path / "new.db"), cache_mib=8) as new:
        other = Worker(log, new, lease_owner="test:2", lease_seconds=0.5)
        await other.run_to_end()

        assert new.tables().checkpoint(TENANT).position == 7_000
        assert [difference async for difference in verify(log, new)] == []


async def test_a_log_is_exported_from_archive_and_server(
    server: Server, log: Log, worker: Worker, url: str, tmp_path: Path
) -> None:
    await fill(log, worker, 600)

    def exported() -> list[str]:
        variables = environment(REDIS_URL=server.url, DATA_DIR=tmp_path, ARCHIVE_URL=url)
        command = [sys.executable, "-m", "streams", "export", TENANT]
        return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()

    before = await asyncio.to_thread(exported)
    await archiver(log).run_once()

    assert await asyncio.to_thread(exported) == before
    assert len(before) == 601


# -- damage ----------------------------------------------------------------------------------------------------------------


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_bit, "is damaged"),
        (os.unlink, "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-10]), "is damaged"),
    ],
    ids=["a flipped bit", "a missing file", "a cut file"],
)
async def test_a_damaged_segment_is_named(
    log: Log, store: SqliteStore, worker: Worker, url: str, damage: Callable[[Path], None], message: str
) -> None:
    await fill(log, worker, 500)
    await archiver(log).run_once()
    [segment] = files(url)
    damage(segment)

    [problem] = [problem async for problem in problems(log)]
    with pytest.raises(Gap, match="positions 1 to 499"):
        await records_of(log)
    with pytest.raises((RebuildRefused, Gap), match="1 to 499"):
        await rebuild(log, store)

    assert segment.name in problem and message in problem and "1 to 499" in problem
    assert store.tables().checkpoint(TENANT).position == 500
    assert [row["position"] for row in store.tables().rows("events", TENANT)] == list(range(1, 501))


@pytest.mark.parametrize("content", [b"", b"{", b'{"tenant":"other","segments":[]}'])
async def test_a_damaged_manifest_is_named(log: Log, worker: Worker, url: str, content: bytes) -> None:
    await fill(log, worker, 50)
    await archiver(log).run_once()
    files(url)[0].with_name("manifest.json").write_bytes(content)

    [problem] = [problem async for problem in problems(log)]
    archived = await archiver(log).run_once()

    assert "manifest.json" in problem
    assert "manifest.json" in archived.stuck[TENANT]


async def test_a_log_that_differs_from_its_archive_is_not_trimmed(server: Server, log: Log, worker: Worker) -> None:
    await fill(log, worker, 50)
    await archiver(log).run_once()
    server.client.flushall()
    await log.append(TENANT, [event(session_id=f"other {number}") for number in range(80)])

    archived = await archiver(log).run_once()

    assert archived.trimmed == 0 and "other records" in archived.stuck[TENANT]
    assert server.client.xlen(keys_of(TENANT).log) == 80


# -- recovery -------------------------------------------------------------------------------------------------------------


async def test_a_server_recovered_from_the_archive_continues_and_detects_duplicates(
    server: Server, log: Log, worker: Worker, tmp_path: Path
) -> None:
    before = await fill(log, worker, 900)
    await archiver(log).run_once()
    server.client.flushall()

    recovered = await recover(log, TENANT, dedup_window_seconds=3_600)
    receipts = await log.append(TENANT, [*events(899), event(session_id="new")])
    second_recovery = await recover(log, TENANT, dedup_window_seconds=3_600)

    assert (recovered.last, recovered.dedup_keys) == (899, 899)  # the newest had not been archived
    assert [receipt.status for receipt in receipts] == ["duplicate"] * 899 + ["accepted"]
    assert [receipt.position for receipt in receipts] == list(range(1, 901))
    assert second_recovery.last == 900
    assert (await records_of(log))[:899] == before[:899]
    assert [problem async for problem in problems(log)] == []
    with SqliteStore(str(tmp_path / "new.db"), cache_mib=8) as new:
        await Worker(log, new, lease_owner="test:2", lease_seconds=0.5).run_to_end()
        assert new.tables().checkpoint(TENANT).position == 900
        assert [difference async for difference in verify(log, new)] == []


async def test_a_recovery_sets_dedup_keys_for_the_rest_of_the_window_only(server: Server, log: Log, worker: Worker) -> None:
    await fill(log, worker, 20)
    await archiver(log).run_once()
    server.client.delete(*server.client.keys("*:dedup:*"))

    assert (await recover(log, TENANT, dedup_window_seconds=0.001)).dedup_keys == 0
    assert (await recover(log, TENANT, dedup_window_seconds=3_600)).dedup_keys == 20
    assert all(3_500 < server.client.ttl(key) <= 3_600 for key in server.client.keys("*:dedup:*"))


async def test_a_recovery_does_not_touch_a_log_that_began_again(server: Server, log: Log, worker: Worker) -> None:
    await fill(log, worker, 20)
    await archiver(log).run_once()
    server.client.flushall()
    await log.append(TENANT, [event(session_id="again")])
    before = sorted(server.client.keys())

    with pytest.raises(HistoryDiffers, match="ends at position 1 on the server, its archive at 19"):
        await recover(log, TENANT, dedup_window_seconds=3_600)

    assert sorted(server.client.keys()) == before


# -- deletion --------------------------------------------------------------------------------------------------------------


async def test_a_deleted_tenant_has_no_archive(log: Log, worker: Worker, url: str) -> None:
    for tenant in (TENANT, "globex"):
        await log.append(tenant, events(20))
    await worker.run_to_end()
    await archiver(log).run_once()
    assert Archive(url).tenants() == [TENANT, "globex"]

    erased = await delete_log(log.connection, TENANT, url)

    assert erased.files == 2
    assert Archive(url).tenants() == ["globex"]
    assert not Path(url.removeprefix("file://"), f"tenant={TENANT}").exists()
    assert (await archiver(log).run_once()).stuck == {}
    assert [problem async for problem in problems(log)] == []


async def test_a_server_whose_memory_is_full_can_still_be_archived_and_a_tenant_deleted(
    own_server: Server, tmp_path: Path
) -> None:
    async with Log(Connection(own_server.url), archive_url=(tmp_path / "archive").as_uri()) as log:
        await log.append(TENANT, numbered(0, 20))
        await log.append("other", numbered(0, 5))
        own_server.client.config_set("maxmemory", 1)
        archiver = Archiver(log, Archive(log.archive_url), lease_owner="test", hot_seconds=0, hot_records=1)

        await archiver.run_once()
        deleted = await delete_log(log.connection, "other", log.archive_url)

        own_server.client.config_set("maxmemory", 0)
        assert own_server.client.get(keys_of(TENANT).archive_lease) is None
        assert deleted.records == 5 and not await log.holds("other")
