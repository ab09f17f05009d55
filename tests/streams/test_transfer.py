"""A log is exported to a file and imported into another installation.

Every record keeps its position and its bytes; an import that cannot do that says why.
"""

import asyncio
import base64
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import streams.transfer.import_log
from projector.live.worker import Worker
from projector.rebuild.verify import verify
from projector.store.sqlite import SqliteStore
from streams import Connection, Log, Record, event_identity, keys_of
from streams.erasure import delete_log, readmit_tenant
from streams.errors import BadTenant, Gap, LogFull, LogUnavailable, TenantDeleted
from streams.transfer import LogDiffers, LogEndsBefore, LogImport
from streams.transfer.format import BadLine, export, line_of, lines_of
from tests.support.clock import stopwatch
from tests.support.commands import clean, peak_mib, run
from tests.support.events import body, event, events
from tests.support.proxy import Proxy, until
from tests.support.records import records_of
from tests.support.servers import BINARIES, Server

pytestmark = pytest.mark.anyio

DEDUP_WINDOW_SECONDS = 86_400.0
LOG = keys_of("acme").log
ENTRIES_BY_HAND: list[dict[str, Any]] = [
    {"foo": "bär"},
    {"event": "", "received_at_us": "3", "version": "1"},
    {"event": "no json", "received_at_us": "4", "version": "1"},
    {"event": b"\xff\x00", "received_at_us": "5", "version": "1"},
    {"event": '{"a":\n1}', "received_at_us": "6", "version": "1"},
    {"event": ' {"a": 1} ', "received_at_us": "7", "version": "1"},
    {"event": '{ "a":1.50, "a" : 2,"é":"\\u00e9\u2028" }', "received_at_us": "8", "version": "2"},
    {"event": "[" * 400 + "]" * 400, "received_at_us": "9", "version": "1"},
    {"event": '{"a":1}', "received_at_us": str(2**62), "version": "0"},
    {"event": b"\xef\xbb\xbf{}", "received_at_us": "10", "version": "1"},
]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few records are many batches."""
    monkeypatch.setattr(streams.transfer.import_log, "CALL_LIMIT_EVENTS", 4)


@pytest.fixture
async def target(tmp_path: Path, server: Server) -> AsyncIterator[Log]:
    """The log of another installation, on a server of the same version."""
    other = Server(next(name for name, binary in BINARIES.items() if binary == server.binary), tmp_path / "target").start()
    try:
        async with Log(Connection(other.url)) as log:
            yield log
    finally:
        other.stop()


async def exported(log: Log, after: int = 0, tenant: str = "acme") -> bytes:
    last = await log.last_position(tenant)
    return b"".join([lines async for _, lines in export(log, tenant, after, last)])


def import_into(log: Log) -> LogImport:
    return LogImport(log, dedup_window_seconds=DEDUP_WINDOW_SECONDS, wait_seconds=0.0)


async def imported(log: Log, file: bytes) -> LogImport:
    log_import = import_into(log)
    await log_import.run(file.splitlines(keepends=True))
    return log_import


def write_by_hand(server: Server, after: int) -> None:
    """Write entries that no ingest endpoint writes, after a position."""
    for position, fields in enumerate(ENTRIES_BY_HAND, after + 1):
        server.client.xadd(LOG, fields, id=f"{position}-0")


def everything_in(server: Server) -> dict[bytes, Any]:
    """Every key with its value, without the times when keys expire."""
    reads: dict[bytes, Any] = {
        b"string": server.client.get,
        b"set": server.client.smembers,
        b"zset": lambda key: server.client.zrange(key, 0, -1),
        b"hash": server.client.hgetall,
        b"stream": server.client.xrange,
    }
    return {key: reads[server.client.type(key)](key) for key in server.client.scan_iter()}


def file_of(*records: Record, after: int = 0, through: int | None = None, tenant: str = "acme") -> bytes:
    """A file as an export writes it."""
    last = through if through is not None else records[-1].position if records else after
    header = {"format": "penstock-log", "version": 1, "tenant": tenant, "after": after, "through": last}
    return json.dumps(header, separators=(",", ":")).encode() + b"\n" + b"".join(map(line_of, records))


def numbered(count: int, received_at_us: int | None = None) -> list[Record]:
    received = time.time_ns() // 1000 if received_at_us is None else received_at_us
    return [Record(i, received, 1, sent.body) for i, sent in enumerate(events(count), 1)]


# -- export and import ---------------------------------------------------------------------------------------------------


async def test_every_record_is_exported_and_imported_unchanged(server: Server, log: Log, target: Log) -> None:
    await log.append("acme", [*events(10), event(session_id="Ж\n\u2028", page='/é"\\')])
    write_by_hand(server, after=11)
    await log.append("acme", [event(session_id="last")])
    file = await exported(log)

    log_import = await imported(target, file)

    assert await records_of(target) == await records_of(log)
    assert await exported(target) == file
    assert (log_import.tenant, log_import.position, log_import.written) == ("acme", 22, 22)


async def test_a_line_is_json_that_holds_the_bytes_of_the_event(server: Server, log: Log) -> None:
    await log.append("acme", [event(page="/é")])
    write_by_hand(server, after=1)

    header, first, *others = (await exported(log)).splitlines()

    assert json.loads(header) == {"format": "penstock-log", "version": 1, "tenant": "acme", "after": 0, "through": 11}
    [(_, fields)] = server.client.xrange(LOG, count=1)
    assert fields[b"event"] in first and json.loads(first)["event"]["properties"] == {"page": "/é"}
    assert json.loads(first)["received_at_us"] == int(fields[b"received_at_us"])
    assert [json.loads(line)["position"] for line in others] == list(range(2, 12))
    decoded = [json.loads(line) for line in others]
    assert [("base64" in line, "event" in line) for line in decoded] == [
        (position != 7, position == 7) for position in range(1, 11)
    ]
    assert base64.b64decode(decoded[3]["base64"]) == b"\xff\x00"


async def test_an_imported_tenant_has_every_key_of_the_first_server(server: Server, log: Log) -> None:
    await log.append("acme", [event(session_id="S1", event_type="2x"), event(session_id="S12", event_type="x")])
    await log.append("acme", [event(event_id="e1"), event(n=1, event_type="other"), *events(9)])
    await log.append("globex", events(2))
    before = everything_in(server)
    acme, globex = await exported(log), await exported(log, tenant="globex")
    server.client.flushall()

    await imported(log, acme)
    await imported(log, globex)

    assert everything_in(server) == before


async def test_a_retry_after_the_import_is_a_duplicate(log: Log, target: Log) -> None:
    sent = [*events(9), event(event_id="e1"), event(session_id="S1", event_type="2x"), event(session_id="S12", event_type="x")]
    await log.append("acme", sent)
    await imported(target, await exported(log))

    receipts = await target.append("acme", [*sent, event(event_id="e1", other=1), event(session_id="new")])

    assert [(receipt.status, receipt.position) for receipt in receipts[:-2]] == [("duplicate", i) for i in range(1, 13)]
    assert [(receipt.status, receipt.position) for receipt in receipts[-2:]] == [("conflict", 10), ("accepted", 13)]


async def test_a_running_projector_derives_the_same_tables_from_an_import(
    server: Server, log: Log, target: Log, worker: Worker, store: SqliteStore, tmp_path: Path
) -> None:
    await log.append("acme", [*events(40), event(event_id="e1"), event(event_id="e1", other=1)])
    write_by_hand(server, after=41)
    server.client.delete(*server.client.keys("*:dedup:*"))
    await log.append("acme", [event(event_id="e1"), event(session_id="new")])  # a late duplicate
    await worker.run_to_end()

    through = await log.last_position("acme")

    with SqliteStore(str(tmp_path / "target.db"), cache_mib=8) as target_store:
        stop = asyncio.Event()
        running = asyncio.create_task(Worker(target, target_store, lease_owner="test:2", lease_seconds=0.5).run(stop))
        await asyncio.sleep(0.2)  # after its first sweep only a message shows it new records
        await imported(target, await exported(log))
        await until(lambda: target_store.tables().checkpoint("acme").position == through)
        stop.set()
        await running

        for table in ("events", "event_sessions", "quarantine", "checkpoints"):
            assert rows_of(target_store, table) == rows_of(store, table) != []
        assert [difference async for difference in verify(target, target_store)] == []


def rows_of(store: SqliteStore, table: str) -> list[tuple[Any, ...]]:
    with store.reading() as connection:
        return [tuple(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2")]


async def test_an_import_wakes_projectors_and_their_groups_begin_with_the_first_record(server: Server, log: Log) -> None:
    keys = keys_of("acme")
    server.client.sadd(keys.groups, "one", "two")
    listening = server.client.pubsub(ignore_subscribe_messages=True)
    listening.subscribe("penstock:ready")
    listening.get_message(timeout=1)

    await imported(log, file_of(*numbered(9)))

    groups = server.client.xinfo_groups(LOG)
    assert [(group["name"], group["last-delivered-id"]) for group in groups] == [(b"one", b"0-0"), (b"two", b"0-0")]
    assert [server.client.zcard(f"{{{keys.partition}}}:ready:{group}") for group in ("one", "two")] == [1, 1]
    message = listening.get_message(timeout=5)
    assert message is not None and int(message["data"]) == keys.partition
    assert server.client.smembers(keys.tenants) == {b"acme"}
    listening.close()


# -- dedup keys ----------------------------------------------------------------------------------------------------------


async def test_a_dedup_key_lasts_for_the_rest_of_the_window(server: Server, log: Log) -> None:
    now_us = time.time_ns() // 1000
    ages = [DEDUP_WINDOW_SECONDS + 60, DEDUP_WINDOW_SECONDS - 60, DEDUP_WINDOW_SECONDS / 2, 0, -3_600]
    records = [
        Record(i, now_us - int(age * 1e6), 1, sent.body) for i, (age, sent) in enumerate(zip(ages, events(5), strict=True), 1)
    ]

    await imported(log, file_of(*records))

    seconds_left = [server.client.pttl(keys_of("acme").dedup + event_identity("acme", sent)[0]) / 1000 for sent in events(5)]
    assert seconds_left[0] < 0
    assert seconds_left[1:] == pytest.approx([60, DEDUP_WINDOW_SECONDS / 2, DEDUP_WINDOW_SECONDS, DEDUP_WINDOW_SECONDS], abs=20)


async def test_of_two_records_with_one_identity_the_first_has_the_dedup_key(log: Log) -> None:
    now_us = time.time_ns() // 1000
    records = [Record(1, now_us, 1, event(n=1).body), Record(2, now_us, 1, event(n=2).body)]

    await imported(log, file_of(*records))

    assert await log.positions_of("acme", event_identity("acme", event(n=1))[0]) == [1]
    [receipt] = await log.append("acme", [event(n=1)])
    assert (receipt.status, receipt.position) == ("duplicate", 1)


async def test_two_identities_with_one_hash_share_the_longer_lifetime(server: Server, log: Log) -> None:
    now_us = time.time_ns() // 1000
    first, second = event(session_id="S1", event_type="2x"), event(session_id="S12", event_type="x")

    await imported(
        log, file_of(Record(1, now_us, 1, first.body), Record(2, now_us - int(DEDUP_WINDOW_SECONDS * 9e5), 1, second.body))
    )

    assert await log.positions_of("acme", event_identity("acme", first)[0]) == [1, 2]
    assert server.client.pttl(keys_of("acme").dedup + event_identity("acme", first)[0]) > DEDUP_WINDOW_SECONDS * 900
    assert [receipt.status for receipt in await log.append("acme", [second, first])] == ["duplicate", "duplicate"]


# -- repeated imports ----------------------------------------------------------------------------------------------------


async def test_a_repeated_import_changes_nothing(server: Server, log: Log) -> None:
    file = file_of(*numbered(11))
    await imported(log, file)
    before = everything_in(server)

    again = await imported(log, file)

    assert (again.position, again.written, again.compared) == (11, 0, 11)
    assert everything_in(server) == before


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(0, 1), min_size=1, max_size=4))
async def test_an_import_that_was_cut_anywhere_and_repeated_is_complete(server: Server, log: Log, cuts: list[float]) -> None:
    server.client.flushall()
    records = [*numbered(18), Record(19, 7, 0, b"\xff by hand")]
    file = file_of(*records)
    position = 0

    for cut in sorted(cuts):
        log_import = import_into(log)
        with pytest.raises(BadLine) as refused:
            await log_import.run(file[: int(cut * (len(file) - 1))].splitlines(keepends=True))
        assert str(refused.value).endswith("is cut") or "missing" in str(refused.value)
        position = max(position, log_import.position)
        assert await records_of(log) == records[:position]
    log_import = await imported(log, file)

    assert (log_import.compared, log_import.written) == (position, 19 - position)
    assert await records_of(log) == records


async def test_an_import_continues_after_a_lost_reply(server: Server) -> None:
    records = numbered(20)
    async with Proxy(server.socket) as proxy, Log(Connection(proxy.url, budget_seconds=0.3)) as log:
        await imported(log, file_of(*records[:4]))
        log_import = LogImport(log, dedup_window_seconds=DEDUP_WINDOW_SECONDS, wait_seconds=10)
        proxy.swallow_reply(7)  # the reply to the second batch

        await log_import.run(file_of(*records).splitlines(keepends=True))

        assert len(proxy.swallowed) == 1
        assert (log_import.position, log_import.written, log_import.compared) == (20, 12, 8)
        assert await records_of(log) == records


async def test_an_import_waits_for_a_server_that_is_down(own_server: Server) -> None:
    records = numbered(10)
    async with Log(Connection(own_server.url, budget_seconds=0.2)) as log:
        await imported(log, file_of(*records[:5]))
        own_server.kill()
        log_import = LogImport(log, dedup_window_seconds=DEDUP_WINDOW_SECONDS, wait_seconds=20)
        importing = asyncio.create_task(log_import.run(file_of(*records).splitlines(keepends=True)))
        await asyncio.sleep(0.5)
        own_server.start()
        await importing

        assert await records_of(log) == records


async def test_an_import_stops_waiting_after_a_time_limit(own_server: Server) -> None:
    own_server.kill()
    async with Log(Connection(own_server.url, budget_seconds=0.1)) as log:
        with stopwatch() as watch:
            with pytest.raises(LogUnavailable):
                await LogImport(log, dedup_window_seconds=1, wait_seconds=0.5).run(
                    file_of(*numbered(1)).splitlines(keepends=True)
                )
            assert watch.wall_seconds > 0.3
            assert watch.seconds < 5


async def test_a_full_server_writes_a_batch_whole_or_not_at_all(own_server: Server) -> None:
    records = numbered(40)
    async with Log(Connection(own_server.url)) as log:
        await imported(log, file_of(*records[:6]))
        own_server.client.config_set("maxmemory", 1)
        before = everything_in(own_server)
        log_import = import_into(log)
        with pytest.raises(LogFull):
            await log_import.run(file_of(*records).splitlines(keepends=True))

        assert everything_in(own_server) == before and log_import.position == 6
        own_server.client.config_set("maxmemory", 0)
        assert (await imported(log, file_of(*records))).written == 34


async def test_an_import_that_was_killed_and_repeated_is_complete(server: Server, log: Log, tmp_path: Path) -> None:
    records = numbered(30_000)
    (tmp_path / "t.ndjson").write_bytes(file_of(*records))
    reached = [0]

    while reached[-1] < 30_000:
        process = subprocess.Popen(
            [sys.executable, "-m", "streams", "import", "t.ndjson"],
            cwd=tmp_path, env=clean() | {"REDIS_URL": server.url}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        goal = reached[-1] + 10_000
        while process.poll() is None and await log.last_position("acme") < goal:
            await asyncio.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        reached.append(await log.last_position("acme"))

    assert len(reached) > 2
    assert await records_of(log) == records
    assert server.client.dbsize() == 30_000 + 2  # a dedup key for each, the log, the tenants


# -- refused -------------------------------------------------------------------------------------------------------------


async def test_a_log_with_other_records_is_refused_at_the_first_difference_and_not_changed(server: Server, log: Log) -> None:
    records = numbered(9)
    await imported(log, file_of(*records))
    before = everything_in(server)

    for changed in (
        Record(7, records[6].received_at_us, 1, body(other=1)),
        Record(7, records[6].received_at_us + 1, 1, records[6].body),
        Record(7, records[6].received_at_us, 2, records[6].body),
    ):
        log_import = import_into(log)
        later_records = [Record(i, 5, 1, body(n=i)) for i in (8, 9, 10, 11)]
        with pytest.raises(LogDiffers, match=r"another record than the file at position 7$"):
            await log_import.run(file_of(*records[:6], changed, *later_records).splitlines(keepends=True))
        assert (log_import.position, log_import.written) == (6, 0)
        assert everything_in(server) == before


async def test_a_log_with_a_gap_is_not_repaired(server: Server, log: Log) -> None:
    records = numbered(6)
    await imported(log, file_of(*records[:5]))
    server.client.xdel(LOG, "5-0")

    with pytest.raises(LogDiffers, match="holds no record at position 5"):
        await imported(log, file_of(*records))
    assert await records_of(log) == records[:4]


async def test_an_append_by_another_process_stops_the_import(server: Server, log: Log) -> None:
    records = numbered(20)

    def lines() -> Iterator[bytes]:
        for number, line in enumerate(file_of(*records).splitlines(keepends=True)):
            if number == 14:
                server.client.xadd(LOG, {"event": body(), "received_at_us": "1", "version": "1"}, id="13-0")
            yield line

    log_import = import_into(log)
    with pytest.raises(LogDiffers, match="at position 13; another process writes to it"):
        await log_import.run(lines())

    assert (log_import.position, log_import.written) == (12, 12)
    assert await log.last_position("acme") == 13


async def test_the_loss_of_the_log_stops_the_import(server: Server, log: Log) -> None:
    def lines() -> Iterator[bytes]:
        for number, line in enumerate(file_of(*numbered(20)).splitlines(keepends=True)):
            if number == 14:
                server.client.flushall()
            yield line

    with pytest.raises(LogEndsBefore):
        await import_into(log).run(lines())
    assert await log.last_position("acme") == 0


def replaced(file: bytes, number: int, line: bytes) -> bytes:
    lines = file.splitlines(keepends=True)
    return b"".join([*lines[: number - 1], line, *lines[number:]])


LINES = file_of(*numbered(9, received_at_us=1)).splitlines(keepends=True)
SEVENTH = LINES[6]
WRONG_LINES = {
    "a gap": (b"", "line 7 has position 7, after 5 comes 6"),
    "a line twice": (LINES[5], "line 7 has position 5, after 5 comes 6"),
    "garbage": (b"\x00\x9f garbage\n", "line 7 is damaged: "),
    "no object": (b"[]\n", "line 7 is damaged: "),
    "blank": (b"\n", "line 7 is damaged: "),
    "an unknown member": (SEVENTH.replace(b"{", b'{"x":1,', 1), "line 7 is damaged: .*x"),
    "a changed byte": (SEVENTH.replace(b"page_view", b"page_vieW"), "line 7 is damaged: its digest does not match"),
    "a changed time": (SEVENTH.replace(b'"received_at_us":1,', b'"received_at_us":2,'), "line 7 is damaged: its digest does not match"),
    "bytes that are not UTF-8": (SEVENTH.replace(b"page_view", b"page\xff"), "line 7 is damaged"),
    "without an event": (b'{"position":6,"received_at_us":1,"version":1}\n', "line 7 is damaged: it has no event, or two"),
    "two events": (b'{"position":6,"received_at_us":1,"version":1,"event":{},"base64":"e30="}\n', "it has no event, or two"),
    "invalid base64": (b'{"position":6,"received_at_us":1,"version":1,"base64":"e3="}\n', "line 7 is damaged: "),
    "a negative time": (b'{"position":6,"received_at_us":-1,"version":1,"event":{}}\n', "line 7 is damaged: "),
    "a position that is no number": (b'{"position":"6","received_at_us":1,"version":1,"event":{}}\n', "line 7 is damaged: "),
    "deeply nested": (b'{"position":6,"received_at_us":1,"version":1,"event":' + b"[" * 9999 + b"]" * 9999 + b"}\n", "line 7 is damaged: "),
    "a header of another tenant": (file_of(tenant="globex", after=5), "line 7 begins the log of globex after position 5; it must go on"),
    "a header with an earlier position": (file_of(after=4), "line 7 begins the log of acme after position 4; it must go on"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG_LINES)
async def test_records_before_a_wrong_line_are_imported_and_the_line_is_named(log: Log, kind: str) -> None:
    line, message = WRONG_LINES[kind]
    records = numbered(9, received_at_us=1)
    log_import = import_into(log)

    with pytest.raises(BadLine, match=message):
        await log_import.run(replaced(file_of(*records), 7, line).splitlines(keepends=True))

    assert log_import.position == 5
    assert await records_of(log) == records[:5]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"", "line 1 is missing: the file is empty"),
        (LINES[1], "line 1 is not the header of an export"),
        (b"\x1f\x8b\x08\x00\n", "line 1 is not the header of an export"),
        (b"[1]\n", "line 1 is not the header of an export"),
        (LINES[0].replace(b'"version":1', b'"version":2'), "line 1 says format 'penstock-log' version 2; Penstock reads"),
        (LINES[0].replace(b"penstock", b"other"), "line 1 says format 'other-log' version 1"),
        (LINES[0].replace(b'"after":0', b'"after":-1'), "line 1 is not the header of an export"),
        (LINES[0].rstrip(), "line 1 is cut"),
        (b"".join(LINES[:4]), "line 5 is missing: the file ends at position 3, its header says 9"),
        (b"".join(LINES)[:-1], "line 10 is cut"),
    ],
)
async def test_a_file_that_is_no_export_is_refused(log: Log, file: bytes, message: str) -> None:
    with pytest.raises(BadLine, match=message):
        await imported(log, file)


async def test_a_line_without_a_digest_is_accepted(log: Log) -> None:
    await imported(log, file_of(through=1) + b'{"position":1, "received_at_us":1, "version":1, "event": {"by":"hand"} }\n')

    assert await records_of(log) == [Record(1, 1, 1, b'{"by":"hand"}')]


async def test_a_line_longer_than_any_record_is_refused_without_being_read(log: Log, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("streams.transfer.format.LINE_LIMIT_BYTES", 1_000)
    (tmp_path / "t").write_bytes(LINES[0] + b"x" * 5_000_000)

    with (tmp_path / "t").open("rb") as file, pytest.raises(BadLine, match="line 2 is longer than 1000 bytes"):
        await import_into(log).run(lines_of(file, 1_000))


async def test_a_log_cannot_become_the_log_of_another_tenant(log: Log) -> None:
    log_import = import_into(log)
    with pytest.raises(BadLine, match="the log of acme: its events' identities include that name"):
        await log_import.run(LINES, tenant="globex")
    assert await log.last_position("acme") == await log.last_position("globex") == 0


async def test_a_tenants_name_in_a_file_reaches_no_key_of_another_tenant(log: Log) -> None:
    with pytest.raises(BadTenant):
        await imported(log, file_of(*numbered(1), tenant="{1}:log:x"))


async def test_an_import_does_not_bring_back_a_deleted_tenant(server: Server, log: Log) -> None:
    await imported(log, file_of(*numbered(5)))
    await delete_log(log.connection, "acme")
    before = everything_in(server)

    with pytest.raises(TenantDeleted):
        await imported(log, file_of(*numbered(5)))
    assert everything_in(server) == before
    await readmit_tenant(log.connection, "acme")
    assert (await imported(log, file_of(*numbered(5)))).written == 5


async def test_a_file_that_begins_after_the_end_of_the_log_is_refused(log: Log) -> None:
    records = numbered(9)
    await imported(log, file_of(*records[:3]))

    with pytest.raises(LogEndsBefore, match="ends at position 3, and the file goes on after position 4"):
        await imported(log, file_of(*records[4:], after=4))
    assert (await imported(log, file_of(*records[2:], after=2))).written == 6
    assert await records_of(log) == records


async def test_joined_files_are_imported_as_one_log(log: Log) -> None:
    records = numbered(9)

    log_import = await imported(log, file_of(*records[:5]) + file_of(after=5) + file_of(*records[5:], after=5))

    assert log_import.position == 9
    assert await records_of(log) == records


# -- commands ------------------------------------------------------------------------------------------------------------


def command(server: Server, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run("streams", *arguments, folder=folder, REDIS_URL=server.url, **environment)


async def test_the_commands_move_a_log_and_say_what_they_did(server: Server, log: Log, tmp_path: Path) -> None:
    await log.append("acme", events(1_200))
    write_by_hand(server, after=1_200)
    before = await records_of(log)

    out = command(server, tmp_path, "export", "acme", "--out", "t.ndjson")
    piped = command(server, tmp_path, "export", "acme")
    server.client.flushall()
    into = command(server, tmp_path, "import", "t.ndjson")

    assert (out.returncode, piped.returncode, into.returncode) == (0, 0, 0), out.stderr + into.stderr
    assert out.stdout == "" and "exporting: 1210 of 1210 records" in out.stderr
    assert piped.stdout.encode() == (tmp_path / "t.ndjson").read_bytes()
    assert "the log of acme up to position 1210, 1210 records" in out.stderr
    assert "imported: the log of acme up to position 1210, 1210 records written, 0 were there" in into.stdout
    assert await records_of(log) == before
    assert os.listdir(tmp_path) == ["t.ndjson"]


async def test_a_pipe_moves_a_log(server: Server, log: Log, tmp_path: Path) -> None:
    await log.append("acme", events(700))
    target = Server("valkey", tmp_path / "target").start()
    try:
        streams = f"{sys.executable} -m streams"
        pipeline = f"REDIS_URL={server.url} {streams} export acme | REDIS_URL={target.url} {streams} import"
        piped = subprocess.run(["sh", "-c", pipeline], cwd=tmp_path, env=clean(), capture_output=True, text=True, timeout=20)

        assert piped.returncode == 0, piped.stderr
        assert target.client.xrange(LOG) == server.client.xrange(LOG)
    finally:
        target.stop()


async def test_a_gap_ends_an_export_and_leaves_no_file(server: Server, log: Log, tmp_path: Path) -> None:
    await log.append("acme", events(9))
    (tmp_path / "old.ndjson").write_text("old")
    server.client.xdel(LOG, "7-0")

    to_file = command(server, tmp_path, "export", "acme", "--out", "old.ndjson")
    piped = command(server, tmp_path, "export", "acme")

    assert (to_file.returncode, piped.returncode) == (1, 1)
    assert to_file.stderr.splitlines()[-1] == "the log of acme misses the records at positions 7 to 7."
    assert (tmp_path / "old.ndjson").read_text() == "old" and os.listdir(tmp_path) == ["old.ndjson"]
    assert [json.loads(line)["position"] for line in piped.stdout.splitlines()[1:]] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(Gap):
        await exported(log)


async def test_an_export_continues_where_a_file_ends(server: Server, log: Log, tmp_path: Path) -> None:
    await log.append("acme", events(5))
    command(server, tmp_path, "export", "acme", "--out", "t.ndjson")
    await log.append("acme", [event(session_id="more"), event(session_id="and more")])
    file = tmp_path / "t.ndjson"
    file.write_bytes(file.read_bytes() + b'{"position":6,"received_at')  # as an export that was cut leaves it

    refused = command(server, tmp_path, "export", "acme", "--after", "4", "--out", "t.ndjson")
    continued = command(server, tmp_path, "export", "acme", "--after", "5", "--out", "t.ndjson")

    assert refused.returncode == 1 and "t.ndjson ends at position 5 of the log of acme" in refused.stderr
    assert continued.returncode == 0, continued.stderr
    before = await records_of(log)
    server.client.flushall()
    assert (await imported(log, file.read_bytes())).written == 7
    assert await records_of(log) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "unknown"], "There is no log of unknown."),
        (["export", "acme", "--after", "6"], "The log of acme ends at position 5; there is nothing after 6."),
        (["export", "{acme}"], "A tenant's name is 1 to 64"),
        (["export", "acme", "--out", "no/where"], "No such file or directory"),
        (["import", "nothing"], "nothing: No such file or directory. Nothing was written."),
        (["import", "garbage"], "line 1 is not the header of an export"),
        (["import", "other"], "the log of acme holds another record than the file at position 3. Up to position 2 the log of acme "
         "is as in the file; no records were written."),
        (["import", "cut"], "line 7 is cut. Up to position 5 the log of acme is as in the file; no records were written."),
        (["import", "--tenant", "globex", "cut"], "so it cannot become the log of globex"),
    ],
)  # fmt: skip
async def test_a_command_that_fails_says_why_in_a_sentence(
    server: Server, log: Log, tmp_path: Path, arguments: list[str], message: str
) -> None:
    records = numbered(7)
    await imported(log, file_of(*records[:5]))
    (tmp_path / "garbage").write_bytes(random.Random(1).randbytes(100_000))
    (tmp_path / "other").write_bytes(file_of(*records[:2], Record(3, 1, 1, b"{}"), *records[3:]))
    (tmp_path / "cut").write_bytes(file_of(*records)[: -len(line_of(records[6])) - 20])

    failed = command(server, tmp_path, *arguments)

    assert failed.returncode == 1
    assert message in failed.stderr.splitlines()[-1]
    assert "Traceback" not in failed.stderr


def test_a_command_without_a_server_says_so(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(file_of(*numbered(1)))

    for arguments in (["export", "acme"], ["import", "--wait", "0.1", "t"]):
        failed = run("streams", *arguments, folder=tmp_path, REDIS_URL=f"unix://{tmp_path}/none", APPEND_TIMEOUT_SECONDS="0.2")
        assert failed.returncode == 1
        assert "none" in failed.stderr.splitlines()[-1] and "Traceback" not in failed.stderr


async def test_an_export_ends_silently_when_its_reader_ends(server: Server, log: Log, tmp_path: Path) -> None:
    await log.append("acme", events(5_000))

    piped = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m streams export acme 2>said | head -1"],
        cwd=tmp_path, env=clean() | {"REDIS_URL": server.url}, capture_output=True, text=True, timeout=20,
    )  # fmt: skip

    assert piped.stdout.startswith('{"format"') and piped.stdout.count("\n") == 1
    assert "Traceback" not in (tmp_path / "said").read_text() and "Broken" not in (tmp_path / "said").read_text()


async def test_a_large_log_moves_in_little_memory(server: Server, log: Log, tmp_path: Path) -> None:
    for first in range(0, 60_000, 500):
        await log.append("acme", [event(event_id=f"e{first + i}", filler="x" * 900) for i in range(500)])
    environment = clean() | {"REDIS_URL": server.url}

    out = peak_mib(["export", "acme", "--out", "t.ndjson"], tmp_path, environment)
    server.client.flushall()
    into = peak_mib(["import", "t.ndjson"], tmp_path, environment)

    assert (tmp_path / "t.ndjson").stat().st_size > 60_000_000
    assert await log.last_position("acme") == 60_000
    assert max(out, into) < 100
