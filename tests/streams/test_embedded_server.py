"""`penstock streams serve` keeps exactly one server on a data directory.

It starts the server again when it dies, and leaves nothing behind.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from streams.embedded_server import find_server, server_arguments
from streams.runtime import Settings
from tests.support.commands import clean

SECONDS = 60.0
IMPATIENT = "import streams.embedded_server as s; s.LOCK_SECONDS = 0.3; from streams.__main__ import main; main(['serve'])"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: a unix socket's path has a limit."""
    path = Path(tempfile.mkdtemp(prefix="ps-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def client_of(data: Path) -> redis.Redis:
    """A client that tries once and waits for a second."""
    return redis.Redis(unix_socket_path=str(data / "server.sock"), protocol=2, socket_timeout=1, retry=Retry(NoBackoff(), 0))


class Serving:
    """One `serve` process and what it prints."""

    def __init__(self, folder: Path, *, command: tuple[str, ...] = ("-m", "streams", "serve"), **environment: str) -> None:
        self.data = folder / "data"
        self.printed = folder / f"printed-{time.monotonic_ns()}"
        self.client = client_of(self.data)
        with self.printed.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                cwd=folder,
                env=clean() | {"DATA_DIR": str(self.data)} | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def server_id(self) -> int:
        """The process id of the server that answers, or 0."""
        with contextlib.suppress(redis.exceptions.RedisError, OSError):
            self.client.ping()  # refused while the server loads its file
            return int(self.client.info("server")["process_id"])
        return 0

    def up(self) -> int:
        """Wait until the server answers; returns its process id."""
        wait(lambda: self.server_id() or self.process.poll() is not None)
        assert self.process.poll() is None, self.printed.read_text()
        return self.server_id()

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(SECONDS)


@pytest.fixture
def serve(folder: Path) -> Iterator[Callable[..., Serving]]:
    """Starts `serve`; the fixture kills every process that still runs."""
    started: list[Serving] = []

    def start(**options: str) -> Serving:
        started.append(Serving(folder, **options))  # type: ignore[arg-type]
        return started[-1]

    yield start
    servers = [serving.server_id() for serving in started]
    for serving in started:
        if serving.process.poll() is None:
            serving.end(signal.SIGKILL)
    for process_id in filter(None, servers):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process_id, signal.SIGKILL)


def wait(holds: Callable[[], object], seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        time.sleep(0.01)


def lives(process_id: int) -> bool:
    """Whether a process runs and is no zombie."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def servers_of(folder: Path) -> list[int]:
    """The process ids of all servers in the data directory."""
    servers = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if "server" in (process / "comm").read_text() and Path(os.readlink(process / "cwd")) == folder / "data":
                servers.append(int(process.name))
    return servers


# -- one server ----------------------------------------------------------------------------------------------------------


def test_serve_starts_a_server_with_durable_settings(serve: Callable[..., Serving]) -> None:
    serving = serve()
    serving.up()

    assert serving.client.config_get("append*")["appendonly"] == "yes"
    assert serving.client.config_get("append*")["appendfsync"] == "always"
    assert serving.client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
    assert int(serving.client.config_get("maxmemory")["maxmemory"] or 0) > 0
    assert serving.client.config_get("port")["port"] == "0"
    assert (serving.data / "server.sock").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("durability", "expected"), [("everysec", ("yes", "everysec")), ("none", ("no", "no"))])
def test_the_durability_decides_when_an_event_is_on_disk(durability: str, expected: tuple[str, str]) -> None:
    arguments = server_arguments("server", Settings(durability=durability))  # type: ignore[arg-type]

    assert arguments[arguments.index("--appendonly") + 1] == expected[0]
    assert arguments[arguments.index("--appendfsync") + 1] == expected[1]


def test_a_server_program_is_found() -> None:
    assert os.access(find_server(), os.X_OK)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_serve_and_its_server_without_loss(serve: Callable[..., Serving], folder: Path, number: int) -> None:
    serving = serve()
    server = serving.up()
    serving.client.set("kept", "yes")

    status = serving.end(number)

    assert status == 0, serving.printed.read_text()
    assert not lives(server)
    assert servers_of(folder) == []
    again = serve()
    again.up()
    assert again.client.get("kept") == b"yes"


def test_a_server_that_was_killed_is_started_again(serve: Callable[..., Serving], folder: Path) -> None:
    serving = serve()
    first = serving.up()
    serving.client.set("kept", "yes")

    os.kill(first, signal.SIGKILL)
    wait(lambda: serving.server_id() not in (0, first))

    assert serving.client.get("kept") == b"yes"
    assert len(servers_of(folder)) == 1
    assert "ended with status -9" in serving.printed.read_text()


def test_serve_that_was_killed_and_started_again_has_one_server_and_lost_nothing(
    serve: Callable[..., Serving], folder: Path
) -> None:
    serving = serve()
    orphan = serving.up()
    for i in range(100):
        serving.client.set(f"kept-{i}", i)

    serving.end(signal.SIGKILL)
    again = serve()
    wait(lambda: again.server_id() not in (0, orphan))

    assert not lives(orphan)
    assert servers_of(folder) == [again.server_id()]
    assert [again.client.get(f"kept-{i}") for i in range(100)] == [str(i).encode() for i in range(100)]


def test_a_server_without_its_supervisor_ends(serve: Callable[..., Serving], folder: Path) -> None:
    serving = serve()
    orphan = serving.up()

    serving.end(signal.SIGKILL)

    wait(lambda: not lives(orphan))


def test_a_second_serve_on_one_directory_is_refused_with_a_sentence(serve: Callable[..., Serving], folder: Path) -> None:
    serving = serve()
    server = serving.up()
    serving.client.set("kept", "yes")

    second = serve(command=("-c", IMPATIENT))
    status = second.process.wait(SECONDS)

    assert status == 1
    printed = second.printed.read_text()
    assert printed.count("\n") == 1 and "DATA_DIR" in printed and str(serving.data) in printed
    assert serving.server_id() == server
    assert servers_of(folder) == [server]
    assert serving.client.get("kept") == b"yes"


def test_serve_waits_for_the_end_of_an_earlier_server(serve: Callable[..., Serving], folder: Path) -> None:
    serving = serve()
    server = serving.up()
    os.kill(server, signal.SIGSTOP)
    serving.end(signal.SIGKILL)  # the server gets a signal to end, but is stopped

    again = serve()
    with contextlib.suppress(subprocess.TimeoutExpired):
        again.process.wait(1.0)
    assert again.process.poll() is None
    assert servers_of(folder) == [server], "two servers share one file"
    os.kill(server, signal.SIGCONT)

    wait(lambda: again.server_id() not in (0, server))


def test_with_redis_url_no_server_is_started(serve: Callable[..., Serving], folder: Path) -> None:
    serving = serve(REDIS_URL="redis://localhost:1")
    wait(lambda: "no embedded server" in serving.printed.read_text())

    assert not serving.data.exists()
    assert serving.end() == 0


def test_a_relative_directory_works(serve: Callable[..., Serving], folder: Path) -> None:
    serving = serve(DATA_DIR="data")

    assert serving.up()
    assert (folder / "data" / "server.sock").is_socket()


def test_a_data_directory_that_is_a_file_is_reported_in_a_sentence(serve: Callable[..., Serving], folder: Path) -> None:
    (folder / "data").write_text("in the way")

    serving = serve()
    status = serving.process.wait(SECONDS)

    assert status == 1
    assert "DATA_DIR" in serving.printed.read_text()
    assert "Traceback" not in serving.printed.read_text()


def test_a_server_that_does_not_answer_is_ended_too(serve: Callable[..., Serving]) -> None:
    serving = serve()
    server = serving.up()
    os.kill(server, signal.SIGSTOP)

    try:
        serving.process.send_signal(signal.SIGTERM)
        serving.process.wait(4.0)
        wait(lambda: not lives(server), 1.0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(server, signal.SIGCONT)


# -- a damaged file ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["data", "da ta's"])
def test_a_damaged_file_is_named_with_the_command_that_repairs_it(serve: Callable[..., Serving], folder: Path, name: str) -> None:
    data = folder / name
    serving = serve(DATA_DIR=str(data))
    client = client_of(data)
    wait(lambda: "Ready" in serving.printed.read_text())
    client.set("kept", "yes")
    serving.end()
    file = max(data.glob("**/*.aof"), key=lambda path: path.stat().st_mtime)
    size = file.stat().st_size
    with file.open("ab") as damaged:
        damaged.write(b"\0" * 64)

    refused = serve(DATA_DIR=str(data))
    status = refused.process.wait(SECONDS)

    assert status == 1
    assert file.stat().st_size == size + 64, "nothing is repaired unasked"
    sentence = refused.printed.read_text().splitlines()[-1]
    assert str(file) in sentence and "Traceback" not in refused.printed.read_text()
    repair = re.search(r"`(.*)`", sentence)
    assert repair is not None
    repaired = subprocess.run(["sh", "-c", repair[1]], input="y\n", capture_output=True, text=True, timeout=SECONDS)
    assert repaired.returncode == 0, repaired
    again = serve(DATA_DIR=str(data))
    wait(lambda: "Ready" in again.printed.read_text())
    assert client.get("kept") == b"yes"


def test_a_file_with_a_cut_end_is_loaded(serve: Callable[..., Serving], folder: Path) -> None:
    serving = serve()
    serving.up()
    serving.client.set("kept", "yes")
    serving.client.set("cut", "yes")
    serving.end()
    file = max(serving.data.glob("**/*.aof"), key=lambda path: path.stat().st_mtime)
    with file.open("r+b") as cut:
        cut.truncate(file.stat().st_size - 5)

    again = serve()
    again.up()

    assert again.client.mget("kept", "cut") == [b"yes", None]
