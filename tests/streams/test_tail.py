"""`penstock streams tail` prints the records of a log.

It prints the last records, and then each record as it arrives.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streams import Log, keys_of
from tests.support.commands import clean, run
from tests.support.events import event, events
from tests.support.proxy import until
from tests.support.servers import Server

pytestmark = pytest.mark.anyio


@contextmanager
def following(server: Server, folder: Path, *options: str) -> Iterator[Path]:
    """A tail that runs; the file that it prints to."""
    printed = folder / "printed"
    command = [sys.executable, "-m", "streams", "tail", "acme", *options]
    with printed.open("w") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=clean() | {"REDIS_URL": server.url}, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield printed
        assert process.poll() is None, printed.read_text()
    finally:
        process.kill()
        process.wait()


def positions_in(printed: Path) -> list[int]:
    return [int(line.split("\t")[0]) for line in printed.read_text().splitlines()]


async def test_a_line_has_the_position_the_time_and_the_event(server: Server, log: Log, tmp_path: Path) -> None:
    await log.append("acme", [event(page="/é")])

    ended = run("streams", "tail", "acme", "--no-follow", folder=tmp_path, REDIS_URL=server.url)

    assert ended.returncode == 0, ended.stderr
    position, received, body = ended.stdout.rstrip("\n").split("\t")
    assert position == "1"
    assert received.startswith("20") and received.endswith("+00:00")
    assert json.loads(body)["properties"] == {"page": "/é"}


async def test_a_tail_starts_ten_records_before_the_end_or_after_a_position(server: Server, log: Log, tmp_path: Path) -> None:
    await log.append("acme", events(25))

    last = run("streams", "tail", "acme", "--no-follow", folder=tmp_path, REDIS_URL=server.url).stdout
    after = run("streams", "tail", "acme", "--no-follow", "--after", "3", folder=tmp_path, REDIS_URL=server.url).stdout

    assert [int(line.split("\t")[0]) for line in last.splitlines()] == list(range(16, 26))
    assert [int(line.split("\t")[0]) for line in after.splitlines()] == list(range(4, 26))


async def test_a_tail_prints_records_that_arrive(server: Server, log: Log, tmp_path: Path) -> None:
    await log.append("acme", events(2))

    with following(server, tmp_path) as printed:
        await until(lambda: positions_in(printed) == [1, 2])
        await log.append("acme", [event(session_id="next")])
        await log.append("globex", [event()])
        await until(lambda: positions_in(printed) == [1, 2, 3])


async def test_a_tail_waits_for_a_tenants_first_event(server: Server, log: Log, tmp_path: Path) -> None:
    with following(server, tmp_path) as printed:
        await log.append("acme", events(2))
        await until(lambda: positions_in(printed) == [1, 2])


async def test_a_tail_names_a_gap(server: Server, log: Log, tmp_path: Path) -> None:
    await log.append("acme", events(5))
    server.client.xdel(keys_of("acme").log, "3-0")

    ended = run("streams", "tail", "acme", "--no-follow", folder=tmp_path, REDIS_URL=server.url)

    assert ended.returncode == 1
    assert [line.split("\t")[0] for line in ended.stdout.splitlines()] == ["1", "2"]
    assert "misses the records at positions 3 to 3" in ended.stderr and ended.stderr.count("\n") == 1


def test_a_tail_without_a_server_says_so(tmp_path: Path) -> None:
    ended = run("streams", "tail", "acme", folder=tmp_path, REDIS_URL=f"unix://{tmp_path}/none", APPEND_TIMEOUT_SECONDS="0.2")

    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1 and "none" in ended.stderr


def test_a_tail_of_an_invalid_name_says_what_a_name_is(tmp_path: Path) -> None:
    ended = run("streams", "tail", "{acme}", folder=tmp_path, REDIS_URL=f"unix://{tmp_path}/none", APPEND_TIMEOUT_SECONDS="0.2")

    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1 and "A-Z" in ended.stderr


async def test_a_reader_that_closes_the_pipe_ends_a_tail_silently(server: Server, log: Log, tmp_path: Path) -> None:
    await log.append("acme", events(3_000))
    command = f"{sys.executable} -m streams tail acme --after 0 --no-follow | head -1"

    ended = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env=clean() | {"REDIS_URL": server.url}, capture_output=True, text=True, timeout=10
    )

    assert ended.stdout.startswith("1\t") and ended.stdout.count("\n") == 1
    assert ended.stderr == ""
