"""A whole Penstock as processes, to which SDKs of other projects send.

An SDK runs in a process of its own, from a script that reads HOST, KEY and COUNT from its environment, waits PAUSE seconds between
its messages, and ends when the SDK says that everything is sent.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pysqlite3
import pytest

from streams import keys_of
from tests.support.http import TENANT, Api, environment, running, wait_until
from tests.support.servers import Server

NODE_CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "penstock-tests"
SDK_SECONDS = 120.0


class Stack:
    """API, projector and server with AUTH=keys; `key` may append as acme."""

    def __init__(self, api: Api, server: Server, folder: Path, key: str) -> None:
        self.api, self.server, self.folder, self.key = api, server, folder, key

    def python(self, script: str, count: int, **more: Any) -> "Sdk":
        """Start a script in this Python."""
        return self._start([sys.executable, "-c", script], self.folder, count, more)

    def node(self, script: str, count: int, *packages: str, **more: Any) -> "Sdk":
        """Start a script, an ES module, in Node beside packages of npm."""
        folder = node_packages(*packages)
        return self._start(["node", "--input-type=module", "--eval", script], folder, count, more)

    def _start(self, command: list[str], folder: Path, count: int, more: dict[str, Any]) -> "Sdk":
        variables = {"HOST": self.api.url, "KEY": self.key, "COUNT": count, "PAUSE": 0, "HOME": self.folder} | more
        return Sdk(command, folder, environment(**variables))

    def interrupt(self) -> None:
        """Kill the server once the first events are in the tables.

        It is started again once a request was refused.
        """
        wait_until(self.events, "the first events are in the tables")
        refused = self._refused()
        self.server.kill()
        wait_until(lambda: self._refused() > refused, "a request was refused")
        self.server.start()

    def _refused(self) -> int:
        return sum(line.get("status") == 503 for line in self.api.logged)

    def ids(self) -> Counter[str]:
        """How often each event_id is in the events table, once it is level."""
        return Counter(row["event_id"] for row in self.rows())

    def rows(self, table: str = "events") -> list[dict[str, Any]]:
        """The rows of a table in the order of the log, once the tables are level."""
        wait_until(self.is_level, "the tables are level with the log")
        return self._read(f"SELECT * FROM {table} WHERE tenant_id = '{TENANT}' ORDER BY position")

    def events(self) -> list[dict[str, Any]]:
        """The rows of the events table now, with their properties as values."""
        rows = self._read(f"SELECT * FROM events WHERE tenant_id = '{TENANT}' ORDER BY position")
        return [row | {"properties": json.loads(row["properties"])} for row in rows]

    def records(self) -> int:
        """How many records the log has."""
        return int(self.server.client.xlen(keys_of(TENANT).log))

    def is_level(self) -> bool:
        """Whether every record of the log is applied."""
        [row] = self._read(f"SELECT coalesce(max(position), 0) AS position FROM checkpoints WHERE tenant_id = '{TENANT}'")
        return bool(row["position"] == self.records())

    def _read(self, query: str) -> list[dict[str, Any]]:
        with closing(pysqlite3.connect(f"file:{self.folder}/penstock.db?mode=ro", uri=True)) as connection:
            connection.row_factory = pysqlite3.Row
            return [dict(row) for row in connection.execute(query)]


class Sdk:
    """A script that sends with an SDK."""

    def __init__(self, command: list[str], folder: Path, variables: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def end(self) -> str:
        """Its output, once it has ended well; it is killed when it does not end."""
        try:
            output, _ = self._process.communicate(timeout=SDK_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
        assert self._process.returncode == 0, output
        return output


@contextmanager
def standing(folder: Path, **settings: Any) -> Iterator[Stack]:
    """A stack in a folder, whose processes end with the context."""
    with ExitStack() as stack:
        server = Server("valkey", folder / "server").start()
        stack.callback(server.stop)
        environ = {"AUTH": "keys", "LOG_FORMAT": "json", "APPEND_TIMEOUT_SECONDS": 0.5} | settings
        key = _key(server, folder)  # before the API starts, which learns of a later key only within two seconds
        api = stack.enter_context(running(server, folder, projector=True, **environ))
        yield Stack(api, server, folder, key)


def _key(server: Server, folder: Path) -> str:
    """A key that may append as acme, made by the command."""
    creation = subprocess.run(
        [sys.executable, "-m", "api", "key", "create", TENANT],
        cwd=folder,
        env=environment(REDIS_URL=server.url, DATA_DIR=folder),
        capture_output=True,
        text=True,
        check=True,
    )
    return creation.stdout.split()[0]


def need(tool: str) -> str:
    """The path of a program; without it the test is skipped, and fails in CI."""
    path = shutil.which(tool)
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{tool} is not installed")
    return str(path)


def node_packages(*packages: str) -> Path:
    """A folder in which Node finds packages of npm, such as `left-pad@^1`.

    They are installed once, and kept outside of the tree.
    """
    need("node")
    name = hashlib.sha256(" ".join(packages).encode()).hexdigest()[:16]
    folder = NODE_CACHE / name
    if not folder.exists():
        fresh = NODE_CACHE / f"{name}.{os.getpid()}"
        fresh.mkdir(parents=True)
        _install(packages, fresh)
        try:
            fresh.rename(folder)
        except OSError:  # another run was first
            shutil.rmtree(fresh)
    return folder


def _install(packages: Sequence[str], folder: Path) -> None:
    options = [
        "--no-audit",
        "--no-fund",
        "--no-package-lock",
        "--no-update-notifier",
        "--loglevel=error",
        "--prefix",
        str(folder),
    ]
    installation = subprocess.run([need("npm"), "install", *options, *packages], cwd=folder, capture_output=True, text=True)
    if installation.returncode:
        shutil.rmtree(folder)
    assert installation.returncode == 0, installation.stderr


def expected(*prefixes: str, count: int | None = None) -> Counter[str]:
    """Each id of a run once, as `Stack.ids` counts them.

    The prefixes with the numbers below `count`, or the prefixes alone.
    """
    return Counter(prefixes if count is None else [f"{prefix}{number}" for prefix in prefixes for number in range(count)])
