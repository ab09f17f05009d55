"""Logs are JSON for programs, and text in a terminal.

They hold no key, no token, no password and nothing that a client sent.
"""

import base64
import errno
import gzip
import json
import logging
import os
import pty
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from api.auth.credentials import KEY_ID_LENGTH, hash_of, new_key
from projector import ApiKey
from projector.store.sqlite import SqliteStore
from streams import keys_of
from streams.runtime import load_settings
from streams.runtime.logging_setup import formatter, is_text
from streams.runtime.settings import without_passwords
from tests.support.events import body
from tests.support.http import ROOT, environment, logged_in, process_of, running, wait_until
from tests.support.servers import Server

CANARY = "canary7f3a"
SECRET = f"{CANARY} and more than thirty-two bytes"


def output_in_terminal(command: list[str], until: Callable[[str], bool], *, folder: Path, **settings: Any) -> str:
    """Run a command in a terminal until `until(output)` holds."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(command, cwd=folder, env=environment(**settings), stdout=follower, stderr=follower)
    os.close(follower)
    output = b""
    try:
        while not until(output.decode(errors="replace")):
            try:
                chunk = os.read(leader, 65_536)
            except OSError as error:
                assert error.errno == errno.EIO  # all that held the terminal have ended
                break
            output += chunk
    finally:
        process.terminate()
        process.wait(10)
        os.close(leader)
    return output.decode(errors="replace")


def are_json(output: str) -> list[bool]:
    return [line.strip().startswith("{") for line in output.splitlines() if line.strip()]


# -- the format of lines ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("log_format", "terminal", "text"),
    [
        *(("auto", True, True), ("auto", False, False), ("", True, True), ("", False, False), ("xml", False, False)),
        *(("json", True, False), ("json", False, False), ("text", True, True), ("text", False, True)),
    ],
)
def test_a_terminal_gets_text_unless_the_setting_says_otherwise(log_format: str, terminal: bool, text: bool) -> None:
    assert is_text(log_format, terminal) == text


@pytest.mark.parametrize(("variables", "json_lines"), [({}, False), ({"LOG_FORMAT": "json"}, True)], ids=["auto", "json"])
def test_in_a_terminal_lines_are_text_unless_json_is_set(
    server: Server, tmp_path: Path, variables: dict[str, str], json_lines: bool
) -> None:
    command = [sys.executable, "-m", "projector", "run"]
    settings = {"REDIS_URL": server.url, "DATA_DIR": str(tmp_path)} | variables

    output = output_in_terminal(command, lambda output: " applies " in output, folder=tmp_path, **settings)

    assert " applies " in output
    assert set(are_json(output)) == {json_lines}


def test_the_format_of_the_env_file_is_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LOG_FORMAT=text\n")
    with process_of(("-m", "projector", "run"), tmp_path, "out", REDIS_URL=server.url, DATA_DIR=str(tmp_path)):
        output = wait_until(lambda: " applies " in (text := (tmp_path / "out").read_text()) and text, "it applies")

    assert set(are_json(output)) == {False}


@pytest.mark.parametrize("command", ["api", "projector status", "streams settings"])
def test_an_unknown_format_ends_a_command_with_one_sentence(tmp_path: Path, command: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=tmp_path, env=environment(LOG_FORMAT="xml"), capture_output=True, text=True, timeout=20,
    )  # fmt: skip

    assert ended.returncode == 1
    assert ended.stderr.startswith("Setting LOG_FORMAT ") and ended.stderr.count("\n") == 1


def test_an_invalid_line_of_the_env_file_is_reported_once(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("an odd line\n")
    ended = subprocess.run(
        [sys.executable, "-m", "streams", "settings"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=20,
    )  # fmt: skip

    [line] = logged_in(ended.stderr)

    assert (line["level"], line["logger"]) == ("warning", "dotenv.main")


@pytest.mark.parametrize(
    ("terminal", "log_format", "used"),
    [(True, None, "text"), (True, "json", "json"), (False, None, "None"), (False, "text", "text")],
)
def test_the_processes_of_penstock_run_write_text_to_a_terminal(
    tmp_path: Path, terminal: bool, log_format: str | None, used: str
) -> None:
    code = "from api.commands.run_all import environment_of_processes as e; print(f'LOG_FORMAT is {e().get(\"LOG_FORMAT\")}.')"
    command = [sys.executable, "-c", code]
    settings = {"LOG_FORMAT": log_format} if log_format else {}

    if terminal:
        output = output_in_terminal(
            command, lambda output: "LOG_FORMAT is" in output and "\n" in output, folder=tmp_path, **settings
        )
    else:
        output = subprocess.run(
            command, cwd=tmp_path, env=environment(**settings), capture_output=True, text=True, timeout=20, check=True
        ).stdout

    assert f"LOG_FORMAT is {used}." in output


def test_make_run_is_penstock_run(tmp_path: Path) -> None:
    penstock = tmp_path / "penstock"
    penstock.write_text('#!/bin/sh\necho "penstock $*"\n')
    penstock.chmod(penstock.stat().st_mode | stat.S_IXUSR)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "run").touch()
    (tmp_path / "pyproject.toml").touch()

    ended = subprocess.run(
        ["make", "-s", "-f", str(ROOT / "Makefile"), "-o", ".venv/run", "run", f"BIN={tmp_path}"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip

    assert ended.stdout == "penstock run\n"


# -- the content of a line ----------------------------------------------------------------------------------------------


def record(message: str, *arguments: Any, failed: BaseException | None = None) -> logging.LogRecord:
    exc_info = (type(failed), failed, failed.__traceback__) if failed else None
    return logging.LogRecord("projector", logging.WARNING, "x.py", 1, message, arguments, exc_info)


def test_a_line_has_time_logger_message_and_level() -> None:
    line = json.loads(formatter(as_text=False).format(record("%s: stopped:\n%s", "acme", "lost")))

    assert line.pop("timestamp").endswith("Z")
    assert line == {"level": "warning", "logger": "projector", "event": "acme: stopped:\nlost"}


@pytest.mark.parametrize("as_text", [False, True], ids=["json", "text"])
def test_an_exception_is_logged_without_values_of_variables(as_text: bool) -> None:
    def fail(payload: str) -> None:
        raise ValueError("it went wrong")

    with pytest.raises(ValueError) as raised:
        fail(CANARY * 2)
    line = formatter(as_text=as_text).format(record("oh", failed=raised.value))

    assert "Traceback (most recent call last)" in line and "it went wrong" in line and "in fail" in line
    assert CANARY * 2 not in line
    if not as_text:
        assert "\n" not in line and "Traceback" in json.loads(line)["exception"]


URLS = [
    f"redis://:{CANARY}@localhost:6379/1",
    f"rediss://user:{CANARY}@localhost",
    f"redis://user:pass@{CANARY}@localhost",
    f"redis://:{CANARY}/{CANARY}@localhost",
    f"unix://user@/run/server.sock?db=0&password={CANARY}",
    f"unix:///run/server.sock?password={CANARY}&db=0",
    f"unix://user:{CANARY}@/run/server.sock",
]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("as_text", [False, True], ids=["json", "text"])
def test_a_password_in_an_address_is_not_logged(url: str, as_text: bool) -> None:
    lines = formatter(as_text=as_text).format(record("it applies %s to tables", url, failed=ValueError(f"{url!r} is no address")))

    assert CANARY not in lines
    assert "***" in lines and "to tables" in lines and "is no address" in lines


def test_a_long_line_is_searched_quickly() -> None:
    long = "//a" * 300_000

    started = time.thread_time()

    assert without_passwords(long) == long
    assert time.thread_time() - started < 5


def test_an_address_without_a_password_is_logged_unchanged() -> None:
    for url in ("redis://localhost:6379/0", "unix:///run/server.sock?db=1", "sqlite:////data/penstock.db"):
        assert without_passwords(f"applies {url} as user@host") == f"applies {url} as user@host"


@pytest.mark.parametrize("url", [*URLS, f"http://:{CANARY}@localhost", f"redis://:{CANARY}@localhost:port"])
def test_a_process_that_cannot_use_an_address_hides_its_password(tmp_path: Path, url: str) -> None:
    with process_of(("-m", "projector", "run"), tmp_path, "out", REDIS_URL=url, DATA_DIR=str(tmp_path), LEASE_SECONDS=0.2):
        output = wait_until(
            lambda: any(word in (text := (tmp_path / "out").read_text()) for word in ("waiting: ", "Setting ")) and text,
            "it says so",
        )

    assert CANARY not in output
    assert "Traceback" not in output


# -- content from clients -----------------------------------------------------------------------------------------------


def hostile(key: str, token: str) -> list[dict[str, Any]]:
    """Requests with the canary in any part, refused or accepted.

    Each is the arguments of `httpx.request`.
    """
    authorized = {"Authorization": f"Bearer {key}"}
    bodies = [
        b"",
        f'{{"session_id": "{CANARY}'.encode(),
        f'["{CANARY}", 1, {{"{CANARY}": NaN}}]'.encode(),
        CANARY.encode() + b"\xff\0",
    ]
    bodies += [
        json.dumps({"payload": base64.b64encode(CANARY.encode()).decode() + "!"}).encode(),
        body(session_id=CANARY, n="x" * 70_000),
    ]
    bodies += [body(session_id=CANARY), body(session_id=CANARY, more=CANARY), b"[" * 5_000 + CANARY.encode()]
    posts: list[dict[str, Any]] = [{"method": "POST", "content": content, "headers": authorized} for content in bodies]
    posts.append(
        {
            "method": "POST",
            "content": gzip.compress(body(session_id=CANARY))[:-9],
            "headers": authorized | {"Content-Encoding": "gzip"},
        }
    )
    posts.append(
        {"method": "POST", "content": b"x", "headers": authorized | {"Content-Encoding": CANARY, "Content-Type": CANARY}}
    )
    posts.append({"method": "POST", "content": b"x", "headers": authorized | {"X-Tenant-ID": CANARY}})
    bad_credentials = [
        f"Bearer {CANARY}",
        f"Bearer ps_w_{CANARY}",
        f"Bearer a.{CANARY}.b",
        f"Bearer {token}x",
        f"Digest {CANARY}",
        f"Basic {CANARY}!",
    ]
    reads: list[dict[str, Any]] = [{"method": "GET", "headers": {"Authorization": credential}} for credential in bad_credentials]
    reads.append({"method": "GET", "headers": {"X-Write-Key": CANARY.encode() + b"\xe9"}})
    reads += [{"method": "GET", "params": {name: CANARY}, "headers": {"Authorization": f"Bearer {token}"}}
              for name in ("cursor", "limit", "since", "session_id", "event_type", "after", CANARY)]  # fmt: skip
    return posts + reads


RAW = [f"GET /{CANARY}", f"{CANARY} / HTTP/1.1\r\n\r\n", f"GET / HTTP/1.1\r\nAuthorization: {CANARY}\r\n{CANARY}\r\n\r\n",
       f"GET /?{CANARY} HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: {CANARY}\r\n\r\n", f"GET / HTTP/1.1\r\nX: {CANARY * 5_000}\r\n\r\n"]  # fmt: skip


def test_no_log_holds_anything_that_a_client_sent(server: Server, tmp_path: Path) -> None:
    key = new_key("admin")
    with SqliteStore(load_settings({"DATA_DIR": str(tmp_path)}).tables_url.removeprefix("sqlite:///"), cache_mib=8) as store:
        store.api_keys.add(ApiKey("acme", key[:KEY_ID_LENGTH], hash_of(key), "admin", CANARY, 0))
    token = jwt.encode({"tenant": "globex", "role": "admin", "exp": 4_000_000_000, "canary": CANARY}, SECRET)
    settings = {
        "AUTH": "keys",
        "JWT_SECRET": SECRET,
        "ACCESS_LOG": 1,
        "REQUEST_TIMEOUT_SECONDS": 1,
        "READ_WAIT_TIMEOUT_SECONDS": 0.2,
    }
    with running(server, tmp_path, projector=True, **settings) as api:
        server.client.set(keys_of("globex").log, CANARY)
        server.client.xadd(keys_of("acme").log, {"event": f'{{"{CANARY}'}, id="1-0")  # a record that no endpoint accepts
        with httpx.Client(base_url=api.url) as client:
            answers = [client.request(url="/api/events", **request) for request in hostile(key, token)]
            answers.append(
                client.post("/api/events", content=body(session_id=CANARY), headers={"Authorization": f"Bearer {token}"})
            )
        for raw in RAW:
            with api.connect() as connection:
                connection.sendall(raw.encode())
                connection.recv(65_536)
        read = {"Authorization": f"Bearer {key}"}
        wait_until(lambda: httpx.get(f"{api.url}/api/events?after=2", headers=read).status_code == 200, "it is projected")
        quarantined = httpx.get(f"{api.url}/api/receipts/1", headers=read).json()
        output, projector = api.said, (tmp_path / "projector.out").read_text()

    assert quarantined["status"] == "quarantined"
    statuses = {answer.status_code for answer in answers}
    assert statuses >= {202, 400, 401, 403, 415, 422, 500}, statuses
    assert sum("milliseconds" in line for line in logged_in(output)) >= len(answers)
    assert logged_in(projector)
    for text in (output, projector, (tmp_path / "api.out").read_text(), (tmp_path / "projector.out").read_text()):
        for secret in (CANARY, key, token):
            assert secret not in text
