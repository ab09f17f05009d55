"""Every command: its help, its end, its settings.

Also what a command says without a server, and `penstock run`.
"""

import importlib
import inspect
import json
import pkgutil
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import click
import pytest

import api
import projector
import streams
from api.commands.penstock import main
from api.commands.run_all import PROCESSES
from projector.live.worker import Worker
from projector.store.sqlite import SqliteStore
from streams import Connection, Log
from streams.errors import PenstockError
from streams.runtime import Settings, run_command
from tests.support.commands import clean, run
from tests.support.events import events
from tests.support.http import free_port, wait_until
from tests.support.servers import Server

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
HELP_CHARACTERS = 60
PATIENCE_SECONDS = 2.0  # how long a command may take to say that there is no server
ERROR_VALUES: dict[str, Any] = {"int": 3, "str": "acme-value", "bool": True, "list": ["one"], "Sequence": ["one"]}


# -- errors --------------------------------------------------------------------------------------------------------------


def all_errors() -> list[type[PenstockError]]:
    """Every error that a person may read, of every module."""
    for package in (streams, projector, api):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    kinds, waiting = set(), [PenstockError]
    while waiting:
        kind = waiting.pop()
        kinds.add(kind)
        waiting += kind.__subclasses__()
    return sorted((kind for kind in kinds if kind.__module__.split(".")[0] in ("streams", "projector", "api")), key=str)


def made(kind: type[Exception]) -> Exception:
    """An error with some value for each argument that it needs."""
    parameters = inspect.signature(kind).parameters.values()
    needed = [
        parameter
        for parameter in parameters
        if parameter.default is parameter.empty and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    values = {parameter.name: value_of(parameter.annotation) for parameter in needed}
    positional = [values.pop(parameter.name) for parameter in needed if parameter.kind is not parameter.KEYWORD_ONLY]
    return kind(*positional, **values)


def value_of(annotation: Any) -> Any:
    if inspect.isclass(annotation) and issubclass(annotation, Exception):
        return made(annotation)
    return ERROR_VALUES.get(re.split(r"\W", getattr(annotation, "__name__", str(annotation)))[0])


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_every_error_ends_a_command_with_one_sentence(kind: type[PenstockError]) -> None:
    async def act(settings: Settings) -> NoReturn:
        raise made(kind)

    with pytest.raises(SystemExit) as ended:
        run_command(act)

    sentence = ended.value.code
    assert isinstance(sentence, str)  # which Python prints to stderr, and exits with 1
    assert len(sentence) > 10 and sentence.endswith((".", "?")) and "\n" not in sentence
    assert "{" not in sentence and "None" not in sentence


def test_errors_of_every_package_were_walked() -> None:
    assert {kind.__module__.split(".")[0] for kind in all_errors()} == {"streams", "projector", "api"}
    assert len(all_errors()) > 40


@pytest.mark.anyio
async def test_a_server_whose_memory_is_full_cannot_be_recovered_and_says_so(
    own_server: Server, store: SqliteStore, tmp_path: Path
) -> None:
    settings = {"REDIS_URL": own_server.url, "DATA_DIR": str(tmp_path)}
    async with Log(Connection(own_server.url)) as log:
        await log.append("acme", events(20))
        await Worker(log, store, lease_owner="test:1", lease_seconds=0.5).run_to_end()
    assert run("streams", "archive", "--once", folder=tmp_path, HOT_SECONDS="0", **settings).returncode == 0
    own_server.client.flushall()
    own_server.client.config_set("maxmemory", 1)

    ended = run("streams", "recover", folder=tmp_path, **settings)

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "The server's memory is full (maxmemory): it takes no more events until it gets more memory.\n"


# -- no server -----------------------------------------------------------------------------------------------------------

WITHOUT_SERVER = [
    ("streams", "tail", "acme"),
    ("streams", "archive", "--once"),
    ("streams", "verify"),
    ("streams", "recover", "--tenant", "acme"),
    ("streams", "export", "acme"),
    ("streams", "import", "empty"),
    ("streams", "import", "empty", "--format", "ndjson", "--tenant", "acme"),
    ("streams", "erase", "acme", "--session", "S1", "--yes"),
    ("streams", "group", "list"),
    ("streams", "group", "destroy", "projector:x", "--yes"),
    ("projector", "rebuild"),
    ("projector", "verify"),
    ("projector", "status"),
    ("projector", "vacuum"),
    ("projector", "at", "2026-11-20T12:00Z", "--out", "out.db"),
    ("projector", "backup", "kept"),
    ("projector", "quarantine", "drop", "acme", "--yes"),
    ("api", "tenant", "create", "acme"),
    ("api", "tenant", "delete", "acme", "--yes"),
]


@pytest.mark.parametrize("command", WITHOUT_SERVER, ids=" ".join)
def test_a_command_without_a_server_says_so_at_once(command: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    started_s = time.monotonic()
    run(*command[:2], "--help", folder=tmp_path)
    start_s = time.monotonic() - started_s  # what it takes to start this command on this machine now

    started_s = time.monotonic()
    ended = run(*command, folder=tmp_path)
    seconds = time.monotonic() - started_s

    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == f"no server at unix://{tmp_path}/data/server.sock; is `make run` up?"
    assert "Traceback" not in ended.stderr
    assert seconds < PATIENCE_SECONDS + 2 * start_s


def test_a_command_waits_for_a_server_that_is_busy(own_server: Server, tmp_path: Path) -> None:
    own_server.client.execute_command("CLIENT", "PAUSE", 4_000)

    started_s = time.monotonic()
    ended = run("streams", "group", "list", folder=tmp_path, REDIS_URL=own_server.url)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert time.monotonic() - started_s > PATIENCE_SECONDS


# -- help ----------------------------------------------------------------------------------------------------------------


def all_commands(command: click.Command = main, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command and group below `penstock`, as a person types it."""
    yield " ".join(("penstock", *path)), command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from all_commands(below, (*path, name))


@pytest.mark.parametrize(("name", "command"), [pytest.param(*pair, id=pair[0]) for pair in all_commands()])
def test_the_first_line_of_each_help_is_whole_in_the_list(name: str, command: click.Command) -> None:
    first, _, details = (command.help or "").partition("\n")

    assert first.endswith(".") and len(first) <= HELP_CHARACTERS, first
    assert details == "" or details.startswith("\n"), "the first line is a paragraph"
    assert command.get_short_help_str(HELP_CHARACTERS) == first


def test_no_list_of_commands_is_cut() -> None:
    lists = [command.get_help(click.Context(command)) for _, command in all_commands() if isinstance(command, click.Group)]

    assert len(lists) >= 7
    assert [text for text in lists if "..." in text.partition("Commands:")[2]] == []


def test_penstock_and_python_run_the_same_commands(tmp_path: Path) -> None:
    for package in ("api", "projector", "streams"):
        direct = run(package, "--help", folder=tmp_path).stdout
        under = subprocess.run([BIN / "penstock", package, "--help"], env=clean(), capture_output=True, text=True, check=True)
        assert direct.partition("\n")[2] == under.stdout.partition("\n")[2] != ""


def test_the_version_is_that_of_the_package() -> None:
    ended = subprocess.run([BIN / "penstock", "--version"], env=clean(), capture_output=True, text=True, check=True)

    assert ended.stdout == f"penstock, version {version('penstock')}\n"


# -- everything at once, and `.env` ----------------------------------------------------------------------------------------


def test_penstock_run_starts_what_the_procfile_says() -> None:
    procfile = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())

    assert {name: f"python -m {' '.join(arguments)}" for name, arguments in PROCESSES.items()} == procfile


SECRET = "a#secret $HOME of thirty-two bytes"


class Everything:
    """`penstock run` in a folder with a `.env`."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.output = folder / "run.out"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [BIN / "penstock", "run"], cwd=folder, env=clean() | environment, stdout=output, stderr=subprocess.STDOUT
            )

    def __enter__(self) -> "Everything":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(15)

    @property
    def said(self) -> str:
        return self.output.read_text()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_everything_reads_one_env_file_and_the_environment_comes_first(tmp_path: Path) -> None:
    port, other_port = free_port(), free_port()
    (tmp_path / ".env").write_text(
        f"AUTH=keys\nJWT_SECRET={SECRET}\nDATA_DIR=my data\nPORT={other_port}\nWINDOW_SECONDS=60\nLEASE_SECOND=3\nEDITOR=vi\n"
    )
    with Everything(tmp_path, PORT=str(port)) as everything:
        wait_until(lambda: answers(port), "it answers on the port of the environment")
        assert not answers(other_port)
        wait_until(lambda: (tmp_path / "my data" / "penstock.db").exists(), "the tables are in that one directory")
        seen = {
            name: [entry for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if entry.startswith(b"JWT_SECRET=")]
            for name, pid in re.findall(r"(\w+) started \(pid=(\d+)\)", everything.said)
        }
        status = run("projector", "status", "--json", folder=tmp_path)
        assert (status.returncode, json.loads(status.stdout)) == (0, [])
        output = everything.said
    assert set(seen) == set(PROCESSES) and not any(seen.values())  # each process reads the file itself
    assert not (tmp_path / "my").exists() and not (tmp_path / "data").exists()
    for sentence in (
        ".env sets WINDOW_SECONDS, which is called DEDUP_WINDOW_SECONDS now: the line is ignored",
        ".env sets LEASE_SECOND, which is no setting: the line is ignored; LEASE_SECONDS is meant?",
    ):
        assert output.count(sentence) == 1
        assert sentence in status.stderr
    assert "EDITOR" not in output


def test_a_secret_of_the_env_file_is_the_same_in_every_process(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"AUTH=keys\nJWT_SECRET={SECRET}\nDATA_DIR=my data\n")
    code = "from streams.runtime import load_settings; s = load_settings(); print(s.jwt_secret, s.data_dir, sep='|')"

    alone = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=clean(), capture_output=True, text=True, check=True)
    over = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=clean() | {"DATA_DIR": "elsewhere"}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip

    assert alone.stdout == f"{SECRET}|my data\n"
    assert over.stdout == f"{SECRET}|elsewhere\n"


def test_penstock_run_stops_at_a_wrong_setting(tmp_path: Path) -> None:
    ended = subprocess.run(
        [BIN / "penstock", "run"], cwd=tmp_path, env=clean() | {"PORT": "none"}, capture_output=True, text=True, timeout=20
    )

    assert ended.returncode == 1
    assert ended.stderr.startswith("Setting PORT ") and ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_ends_everything(tmp_path: Path) -> None:
    with Everything(tmp_path, PORT=str(free_port())) as everything:
        wait_until(lambda: "Try it" in everything.said, "it serves")
        everything.process.send_signal(signal.SIGINT)
        assert everything.process.wait(15) == 0
    assert everything.said.count("stopped (rc=") == len(PROCESSES)
