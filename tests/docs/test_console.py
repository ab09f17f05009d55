"""Console blocks of pages run as shown.

Every page has a start of its own. Its commands run in order and must print what the page shows.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.console import matches, steps
from tests.support.http import ROOT, free_port

pytestmark = pytest.mark.slow

CLONE = "git clone <this repository> penstock && cd penstock"
START = "make run"
STATUSES = {"penstock streams import --format csv --tenant acme old.csv": 2}
NOT_RUN = {  # they need a second server, or an empty one
    "REDIS_URL=redis://elsewhere penstock streams import acme.ndjson",
    "penstock projector restore backups/penstock",
}
EVENTS = r"""curl -s localhost:8000/api/events -H 'X-Tenant-ID: acme' -d '[
    {"session_id": "S123", "event_type": "page_view", "timestamp": "2026-01-01T10:00:00Z"},
    {"session_id": "S123", "event_type": "click", "timestamp": "2026-01-01T10:00:07Z", "button": "buy", "user_id": "42"}]' &&
    curl -s 'localhost:8000/api/events?after=2' -H 'X-Tenant-ID: acme'"""
BAD_MESSAGE = r"""curl -s localhost:8000/v1/batch -H 'X-Tenant-ID: acme' -d '{"batch": [
    {"type": "track", "messageId": "1", "userId": "42", "event": "Paid"},
    {"type": "track", "messageId": "2", "userId": "42"}]}' &&
    curl -s 'localhost:8000/api/events?after=2' -H 'X-Tenant-ID: acme'"""
PAGES = {  # and what is in the log before
    "README.md": "",
    "docs/quickstart.md": "",
    "docs/explanation/sessions.md": "",
    "docs/how-to/archive.md": EVENTS,
    "docs/how-to/backup-and-restore.md": EVENTS,
    "docs/how-to/delete-a-tenant.md": EVENTS,
    "docs/how-to/erase-a-person.md": EVENTS,
    "docs/how-to/import-and-export.md": EVENTS,
    "docs/how-to/limits.md": "",
    "docs/how-to/quarantine.md": BAD_MESSAGE,
    "docs/how-to/rebuild-and-verify.md": EVENTS,
}
START_SECONDS, END_SECONDS, COMMAND_SECONDS = 30.0, 15.0, 60.0
SQLITE = """#!{python}
import sys, pysqlite3
for row in pysqlite3.connect(f"file:{{sys.argv[1]}}?mode=ro", uri=True).execute(sys.argv[2]):
    print(*row, sep="|")
"""


class Start:
    """A checkout in which `make run` runs, on a port of its own."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.checkout, self._output = folder / "penstock", folder / "make.out"
        self._run: subprocess.Popen[bytes] | None = None
        tools = folder / "bin"
        tools.mkdir()
        if shutil.which("sqlite3") is None:
            (tools / "sqlite3").write_text(SQLITE.format(python=sys.executable))
            (tools / "sqlite3").chmod(0o755)
        path = os.pathsep.join([str(tools), str(self.checkout / ".venv/bin"), os.environ.get("PATH", os.defpath)])
        self._environment = {"PATH": path, "PORT": str(self.port), "PYTHONUNBUFFERED": "1"}

    def clone(self) -> str:
        """Copy the files of this tree; `.venv` is this Python's environment."""
        ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split()]
        shutil.copytree(ROOT, self.checkout, ignore=shutil.ignore_patterns(".git", *ignored))
        (self.checkout / ".venv").symlink_to(sys.prefix)
        return ""

    def start(self, shown: str) -> str:
        """Run `make run`, without an installation, until it prints what is shown."""
        with open(self._output, "wb") as output:
            self._run = subprocess.Popen(
                ["make", "--silent", "-o", ".venv/run", "run"],
                cwd=self.checkout, env=self._environment, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while not matches(shown, self.printed) and time.monotonic() < deadline and self._run.poll() is None:
            time.sleep(0.05)
        return self.printed

    @property
    def printed(self) -> str:
        """What `make run` has printed in whole lines."""
        return self._output.read_text(errors="replace").rpartition("\n")[0] + "\n"

    def shell(self, command: str) -> str:
        """What a command prints, in the checkout.

        Its exit status must be that of STATUSES, or 0.
        """
        command = command.replace("localhost:8000", f"localhost:{self.port}")
        ended = subprocess.run(
            ["bash", "-c", command],
            cwd=self.checkout, env=self._environment, text=True, timeout=COMMAND_SECONDS,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert ended.returncode == STATUSES.get(command, 0), f"$ {command}\n{ended.stdout}"
        return ended.stdout

    def end(self) -> list[int]:
        """Press Ctrl-C; the processes that it did not end are killed and returned."""
        if self._run is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._run.pid, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self._run.wait(END_SECONDS)
        survivors = [pid for pid in self._processes() if _is_alive(pid)]
        for pid in survivors:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._run is not None:
            self._run.wait()
        return survivors

    def _processes(self) -> Iterator[int]:
        """Every process that was started with the port of this start."""
        mark = f"PORT={self.port}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    yield int(folder.name)


def _is_alive(pid: int) -> bool:
    with suppress(OSError):
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    return False


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    start = Start(tmp_path)
    yield start
    assert start.end() == [], "Ctrl-C ends every process of `make run`"


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_the_first_pages_begin_with_a_checkout_and_a_start(page: str) -> None:
    assert [step.command for step in steps((ROOT / page).read_text())[:2]] == [CLONE, START]


@pytest.mark.parametrize("page", PAGES)
def test_each_command_of_a_page_prints_what_the_page_shows(start: Start, page: str) -> None:
    shown = steps((ROOT / page).read_text())
    if shown[0].command != CLONE:
        offered = next(step.output for step in steps((ROOT / "README.md").read_text()) if step.command == START)
        start.clone()
        assert matches(offered, start.start(offered)), start.printed
    if PAGES[page]:
        start.shell(PAGES[page])

    for step in shown:
        if step.command in NOT_RUN:
            continue
        if step.command == CLONE:
            printed = start.clone()
        elif step.command == START:
            printed = start.start(step.output)
        else:
            printed = start.shell(step.command)

        assert matches(step.output, printed), f"$ {step.command}\n--- {page} shows\n{step.output}--- it prints\n{printed}"


def test_every_command_that_is_not_run_stands_on_a_page() -> None:
    shown = {step.command for page in PAGES for step in steps((ROOT / page).read_text())}

    assert NOT_RUN | set(STATUSES) <= shown


def test_an_output_that_differs_is_noticed() -> None:
    assert matches('{"position":1,\n "status":"accepted"}\n', '{"status":"accepted","position":1}')
    assert not matches('{"position":1,"status":"accepted"}\n', '{"status":"accepted","position":2}')
    assert matches("rebuilt: 2 records in 0.0 s (274 records/s)\n", "rebuilt: 2 records in 1.5 s (1,000 records/s)\n")
    assert not matches("rebuilt: 2 records in 0.0 s (274 records/s)\n", "rebuilt: 3 records in 0.0 s (274 records/s)\n")
    assert not matches("", "a line more\n")
    assert matches("…\nb\n", "a\na\nb\n")
    assert not matches("…\nb\n", "a\nb\nc\n")
    assert not matches('1\t"2026-01-01T10:00:00Z"\n', '1\t"2026-01-01T10:00:01Z"\n')
