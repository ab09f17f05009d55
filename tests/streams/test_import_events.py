"""Foreign events are imported once, with the dedup keys of the API.

Every line that is no event is reported; the others are imported.
"""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from streams import Connection, Log, keys_of, parse_event
from streams.erasure import delete_log
from streams.errors import LogUnavailable
from streams.transfer.csv_rows import BadColumns, csv_lines
from streams.transfer.import_events import EventImport, Line, Refusal, ndjson_lines
from tests.support.commands import clean, peak_mib, run
from tests.support.events import body, event, events
from tests.support.http import wait_until
from tests.support.records import records_of
from tests.support.servers import Server

pytestmark = pytest.mark.anyio

LIMIT_BYTES = 64 * 1024
HEADER = b"session_id,event_type,timestamp,event_id,page\n"
ROW = b"S1,view,2026-01-01T10:00:00Z,,/a\n"


def command(server: Server, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run("streams", "import", *arguments, folder=folder, REDIS_URL=server.url, **environment)


async def import_lines(log: Log, lines: Iterator[Line]) -> tuple[EventImport, list[Refusal]]:
    refused: list[Refusal] = []
    event_import = EventImport(log, "acme", refuse=refused.append, wait_seconds=0.0)
    await event_import.run(lines)
    return event_import, refused


async def import_ndjson(log: Log, *lines: bytes) -> tuple[EventImport, list[Refusal]]:
    return await import_lines(log, ndjson_lines(io.BytesIO(b"\n".join(lines)), LIMIT_BYTES))


async def import_csv(log: Log, file: bytes) -> tuple[EventImport, list[Refusal]]:
    return await import_lines(log, csv_lines(io.BytesIO(file), LIMIT_BYTES))


async def bodies_of(log: Log) -> list[dict[str, object]]:
    return [json.loads(record.body) for record in await records_of(log)]


def reasons_of(refused: Sequence[Refusal]) -> list[tuple[int, str]]:
    return [(refusal.line, f"{refusal.field}: {refusal.reason}") for refusal in refused]


# -- NDJSON --------------------------------------------------------------------------------------------------------------


async def test_a_line_is_stored_as_the_ingest_endpoint_stores_it(log: Log) -> None:
    lines = [
        body(session_id="S1", page='/é"'),
        body(event_id="e1", n={"a": [1.5, None]}),
        b' {"timestamp":"2020-02-02T00:00:00+01:00", "session_id":"a", "event_type":"b"} \r',
    ]

    event_import, refused = await import_ndjson(log, *lines, b"", b"  ")

    assert [record.body for record in await records_of(log)] == [parse_event(line).body for line in lines]
    assert (dict(event_import.counts), refused) == ({"accepted": 3, "duplicate": 0, "conflict": 0, "rejected": 0}, [])


async def test_imports_and_appends_detect_each_others_duplicates(log: Log) -> None:
    await log.append("acme", events(3))

    event_import, _ = await import_ndjson(
        log, *(body(session_id=f"S{i % 3}", timestamp=f"2026-01-01T00:00:0{i}Z", n=i) for i in range(5))
    )

    assert (event_import.counts["duplicate"], event_import.counts["accepted"]) == (3, 2)
    assert [receipt.status for receipt in await log.append("acme", events(6))] == ["duplicate"] * 5 + ["accepted"]


async def test_every_refused_line_is_reported_and_the_others_are_imported(log: Log) -> None:
    event_import, refused = await import_ndjson(
        log,
        b"\xef\xbb\xbf" + body(n=1),
        b"{",
        body(n=2),
        body(timestamp="yesterday"),
        b'{"session_id":"S1","event_type":"x"}',
        b"",
        b"[1]",
        body(session_id="a\0b"),
        body(filler="x" * LIMIT_BYTES),
        b'{"a":"\xff"}',
        b'{"session_id":"S1","session_id":"S2","event_type":"x","timestamp":"2026-01-01T10:00:00Z"}',
        body(session_id="last"),
    )

    assert [line for line, _ in reasons_of(refused)] == [2, 3, 4, 5, 7, 8, 9, 10, 11]
    reasons = dict(reasons_of(refused))
    assert "is not JSON" in reasons[2] and reasons[3].startswith(": conflict: the event at position 1 has the same identity")
    assert reasons[4].startswith("timestamp: must be an RFC 3339") and reasons[5] == "timestamp: is missing"
    assert "must be a JSON object" in reasons[7] and "NUL" in reasons[8] and "larger than 65536 bytes" in reasons[9]
    assert "not JSON" in reasons[10] and "session_id: stands twice" in reasons[11]
    assert [refusal.text for refusal in refused][:2] == ["{", body(n=2).decode()] and refused[7].text == '{"a":"\\xff"}'
    assert dict(event_import.counts) == {"accepted": 2, "duplicate": 0, "conflict": 1, "rejected": 8}
    assert await log.last_position("acme") == 2


async def test_many_lines_are_imported_in_order(log: Log) -> None:
    event_import, _ = await import_ndjson(log, *(body(event_id=f"e{i}") for i in range(2_345)))

    assert [stored["event_id"] for stored in await bodies_of(log)] == [f"e{i}" for i in range(2_345)]
    assert event_import.line == 2_345


async def test_an_import_knows_its_last_line_when_the_server_dies(own_server: Server) -> None:
    def lines() -> Iterator[Line]:
        for number in range(1, 2_001):
            if number == 1_400:
                own_server.kill()
            yield Line(number, b"", event(event_id=f"e{number}"))

    async with Log(Connection(own_server.url, budget_seconds=0.2)) as log:
        event_import = EventImport(log, "acme", refuse=print, wait_seconds=0.3)
        with pytest.raises(LogUnavailable):
            await event_import.run(lines())
        assert (event_import.line, event_import.counts["accepted"]) == (1_000, 1_000)
        own_server.start()
        assert await log.last_position("acme") == 1_000


# -- CSV -----------------------------------------------------------------------------------------------------------------


async def test_a_row_becomes_an_event_whose_properties_are_strings(log: Log) -> None:
    file = io.StringIO(newline="")
    rows = [
        ["page", "event_id", "timestamp", "session_id", "a, \"b\"", "event_type"],
        ["/é", "", "2026-01-01T10:00:00Z", "S1", "", "view"],
        ["", "e1", "2026-01-01T10:00:00.5+02:00", "S,2", 'x "y"\nnew\r\nline', "view"],
        ["007", "", "2026-01-01T10:00:01Z", "S1", " ", "view"],
    ]  # fmt: skip
    csv.writer(file).writerows(rows)

    event_import, refused = await import_csv(log, b"\xef\xbb\xbf" + file.getvalue().encode())

    assert refused == [] and event_import.counts["accepted"] == 3
    assert await bodies_of(log) == [
        {"session_id": "S1", "event_type": "view", "timestamp": "2026-01-01T10:00:00Z", "properties": {"page": "/é"}},
        {"session_id": "S,2", "event_type": "view", "timestamp": "2026-01-01T10:00:00.5+02:00", "event_id": "e1",
         "properties": {'a, "b"': 'x "y"\nnew\r\nline'}},
        {"session_id": "S1", "event_type": "view", "timestamp": "2026-01-01T10:00:01Z", "properties": {"page": "007", 'a, "b"': " "}},
    ]  # fmt: skip


async def test_a_refused_row_is_named_by_its_first_line(log: Log) -> None:
    rows = [
        ROW,
        b'S2,view,2026-01-01T10:00:00Z,,"two\nlines"\n',
        b"S3,view,yesterday,,/\n",
        b"S4,view\n",
        b"S5,view,2026-01-01T10:00:00Z,,/,more\n",
        b"\n",
        b",view,2026-01-01T10:00:00Z,,/\n",
        b'S6,view,2026-01-01T10:00:00Z,,"a"b\n',
        b"S7,view,2026-01-01T10:00:00Z,,caf\xe9\n",
        b"S8,view,2026-01-01T10:00:00Z,,a\0b\n",
        b"S9," + b"x" * LIMIT_BYTES * 3 + b"\n",
        b'S10,view,yesterday,,"two\nlines"\n',
        b"S11,view,2026-01-01T10:00:00Z,,last",
    ]

    _, refused = await import_csv(log, HEADER + b"".join(rows))

    reasons = dict(reasons_of(refused))
    assert list(reasons) == [5, 6, 7, 9, 10, 11, 12, 13, 14]
    assert reasons[5].startswith("timestamp: must be") and reasons[6] == ": has 2 cells, the first row has 5"
    assert reasons[7] == ": has 6 cells, the first row has 5" and reasons[9] == "session_id: is missing"
    assert "no row of a CSV" in reasons[10] and "is not UTF-8" in reasons[11] and "NUL" in reasons[12]
    assert "the row is larger than 131072 bytes" in reasons[13] and "timestamp" in reasons[14]
    assert refused[-1].text == 'S10,view,yesterday,,"two\nlines"' and refused[5].text.endswith("caf\\xe9")
    assert [stored["session_id"] for stored in await bodies_of(log)] == ["S1", "S2", "S11"]


async def test_an_unclosed_quote_consumes_no_more_than_the_size_limit_of_a_row(log: Log) -> None:
    good = b"".join(b"S%d,view,2026-01-01T10:00:00Z,,/\n" % i for i in range(10_000))

    _, refused = await import_csv(log, HEADER + b'S0,view,2026-01-01T10:00:00Z,,"open\n' + good)
    _, at_the_end = await import_csv(log, HEADER + b'S0,view,2026-01-01T10:00:00Z,,"open\nmore')

    [(line, reason)] = reasons_of(refused)
    assert line == 2 and "is a quote missing?" in reason
    assert 5_000 < await log.last_position("acme") < 10_000
    assert [line for line, _ in reasons_of(at_the_end)] == [2]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"", "session_id, event_type, timestamp is not there"),
        (b"session_id,event_type,time\n", "timestamp is not there"),
        (b"session_id,event_type,timestamp,\n", "column 4 of the CSV has no name"),
        (b"session_id,event_type,timestamp,a,a\n", "two columns of the CSV are named 'a'"),
        (b"session_id;event_type;timestamp\n", "session_id, event_type, timestamp is not there"),
        (b'"session_id\n', "cannot be read"),
        ("session_id,event_type,timestamp\n".encode("utf-16"), "cannot be read"),
    ],
)
async def test_a_file_with_missing_or_unnamed_columns_is_refused(log: Log, file: bytes, message: str) -> None:
    with pytest.raises(BadColumns, match=message):
        await import_csv(log, file + ROW)
    assert await log.last_position("acme") == 0


# -- the command ---------------------------------------------------------------------------------------------------------


async def test_the_command_counts_receipts_and_its_exit_status_shows_refused_lines(
    server: Server, log: Log, tmp_path: Path
) -> None:
    (tmp_path / "h.ndjson").write_bytes(b"\n".join([body(n=1), body(event_id="e1"), body(event_id="e2"), body(event_id="e1")]))
    (tmp_path / "h.csv").write_bytes(HEADER + ROW + b"S1,view,yesterday,,\n" + b"S1,view,2026-01-01T10:00:00Z,,/b\n")

    first = command(server, tmp_path, "--format", "ndjson", "--tenant", "acme", "h.ndjson", EVENTS_PER_SECOND="1")
    again = command(server, tmp_path, "--format", "ndjson", "--tenant", "acme", "h.ndjson")
    partly_refused = command(server, tmp_path, "--format", "csv", "--tenant", "acme", "h.csv")

    assert (first.returncode, first.stdout) == (0, "imported: 3 accepted, 1 duplicate, 0 conflict, 0 rejected\n"), first.stderr
    assert (again.returncode, again.stdout) == (0, "imported: 0 accepted, 4 duplicate, 0 conflict, 0 rejected\n")
    assert (partly_refused.returncode, partly_refused.stdout) == (
        2,
        "imported: 1 accepted, 0 duplicate, 1 conflict, 1 rejected\n",
    )
    assert "line 3: timestamp must be an RFC 3339" in partly_refused.stderr
    assert "line 4: conflict: the event at position 4 has the same identity" in partly_refused.stderr
    assert await log.last_position("acme") == 4


def test_rejects_are_written_to_a_file_from_which_they_can_be_corrected(server: Server, tmp_path: Path) -> None:
    (tmp_path / "h.ndjson").write_bytes(body(n=1) + b"\n" + body(timestamp="é") + b"\n{\n")

    process = command(server, tmp_path, "--format", "ndjson", "--tenant", "acme", "--rejects", "r.ndjson", "h.ndjson")

    rejects = [json.loads(line) for line in (tmp_path / "r.ndjson").read_text().splitlines()]
    assert process.returncode == 2
    assert [(reject["line"], reject["field"]) for reject in rejects] == [(2, "timestamp"), (3, "")]
    assert json.loads(rejects[0]["text"])["timestamp"] == "é" and rejects[1]["text"] == "{"
    assert "line 2" not in process.stderr


async def test_events_are_imported_from_a_pipe(server: Server, log: Log, tmp_path: Path) -> None:
    piped = subprocess.run(
        ["sh", "-c", f"printf '%s' '{body().decode()}' | {sys.executable} -m streams import --format ndjson --tenant acme"],
        cwd=tmp_path, env=clean() | {"REDIS_URL": server.url}, capture_output=True, text=True, timeout=20,
    )  # fmt: skip

    assert (piped.returncode, piped.stdout) == (0, "imported: 1 accepted, 0 duplicate, 0 conflict, 0 rejected\n"), piped.stderr
    assert await log.last_position("acme") == 1


async def test_a_command_that_fails_says_why(server: Server, log: Log, tmp_path: Path) -> None:
    (tmp_path / "h.csv").write_bytes(HEADER + ROW)
    (tmp_path / "x.csv").write_bytes(ROW)
    await delete_log(log.connection, "deleted")

    def last_line(*arguments: str, **environment: str) -> tuple[int, str]:
        failed = command(server, tmp_path, "--format", "csv", *arguments, **environment)
        assert "Traceback" not in failed.stderr
        return failed.returncode, failed.stderr.splitlines()[-1]

    no_server = {"REDIS_URL": f"unix://{tmp_path}/none", "APPEND_TIMEOUT_SECONDS": "0.2"}
    assert last_line("h.csv") == (1, "Name the tenant of the events: --format csv --tenant TENANT.")
    assert last_line("--tenant", "{x}", "h.csv")[1].startswith("A tenant's name is 1 to 64")
    assert last_line("--tenant", "acme", "nothing") == (1, "nothing: No such file or directory.")
    assert last_line("--tenant", "acme", "--rejects", "./h.csv", "h.csv") == (1, "./h.csv cannot be read and written at once.")
    assert (tmp_path / "h.csv").read_bytes() == HEADER + ROW
    status, sentence = last_line("--tenant", "acme", "x.csv")
    assert status == 1 and "must name the columns" in sentence and "Up to line 0 all is done: 0 accepted" in sentence
    status, sentence = last_line("--tenant", "deleted", "h.csv")
    assert status == 1 and "The tenant was deleted" in sentence
    failed = run(
        "streams", "import", "--format", "csv", "--tenant", "acme", "--wait", "0.1", "h.csv", folder=tmp_path, **no_server
    )
    assert failed.returncode == 1 and "no server at" in failed.stderr and "Traceback" not in failed.stderr


async def test_an_import_that_was_killed_and_repeated_has_every_event_once(server: Server, log: Log, tmp_path: Path) -> None:
    (tmp_path / "h.ndjson").write_bytes(b"\n".join(body(event_id=f"e{i}") for i in range(20_000)))
    arguments = [sys.executable, "-m", "streams", "import", "--format", "ndjson", "--tenant", "acme", "h.ndjson"]
    process = subprocess.Popen(
        arguments, cwd=tmp_path, env=clean() | {"REDIS_URL": server.url}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until(lambda: server.client.xlen(keys_of("acme").log) > 2_000, "it has begun")
    process.kill()
    process.wait()
    before = await log.last_position("acme")

    repeated = command(server, tmp_path, "--format", "ndjson", "--tenant", "acme", "h.ndjson")

    assert 0 < before < 20_000
    assert repeated.stdout == f"imported: {20_000 - before} accepted, {before} duplicate, 0 conflict, 0 rejected\n"
    assert [stored["event_id"] for stored in await bodies_of(log)] == [f"e{i}" for i in range(20_000)]


async def test_a_large_file_is_imported_in_little_memory(server: Server, log: Log, tmp_path: Path) -> None:
    with (tmp_path / "h.csv").open("wb") as file:
        file.write(HEADER)
        for i in range(200_000):
            file.write(b"S%d,view,2026-01-01T10:00:00Z,e%d,/a/page/of/some/length?with=a&query=%d\n" % (i % 1000, i, i))

    peak = peak_mib(["import", "--format", "csv", "--tenant", "acme", "h.csv"], tmp_path, clean() | {"REDIS_URL": server.url})

    assert await log.last_position("acme") == 200_000
    assert peak < 100
