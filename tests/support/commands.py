"""Commands of Penstock as processes."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from projector.store.sqlite import SqliteStore
from streams.runtime import Settings
from tests.support.http import ROOT, environment
from tests.support.servers import Server


def command(server: Server, store: SqliteStore, *arguments: str, **environment: str) -> Any:
    """Run a command of the projector."""
    return subprocess.run(
        [sys.executable, "-m", "projector", *arguments],
        env=os.environ | {"REDIS_URL": server.url, "DATABASE_URL": f"sqlite:///{store.path}", "COLUMNS": "200"} | environment,
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def key_command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "api", "key", *arguments],
        cwd=ROOT, env=environment(DATA_DIR=str(folder), COLUMNS="160"), capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def run(*command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, without the settings of this process."""
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=clean() | environment, capture_output=True, text=True, timeout=120
    )


def clean() -> dict[str, str]:
    """The environment of this process without its settings."""
    names = set(Settings.__struct_encode_fields__)
    home = str(Path(__file__).parents[2])
    return {name: value for name, value in os.environ.items() if name not in names} | {"PYTHONPATH": home}


def peak_mib(arguments: list[str], folder: Path, environment: dict[str, str]) -> float:
    """The most memory that a command takes, in MiB; it must end well."""
    process = subprocess.Popen(
        [sys.executable, "-m", "streams", *arguments],
        cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    peak = 0  # not that of getrusage, which is at least this process's own
    while process.poll() is None:
        line = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
        peak = int(line[1]) if line else peak
        time.sleep(0.01)
    assert process.returncode == 0
    return peak / 1024
