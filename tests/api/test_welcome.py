"""GET / tells a person what this server is, and gives commands that work."""

import re
import subprocess
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import httpx
import pytest

from tests.support.http import Api, environment, running, wait_until
from tests.support.servers import Server

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
TERMINAL = {"Accept": "*/*"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server("valkey", tmp_path_factory.mktemp("server")).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def api(server: Server, folder: Path) -> Iterator[Api]:
    with running(server, folder) as api:
        yield api


def commands_in(answer: httpx.Response) -> list[str]:
    """The commands in an answer."""
    if answer.headers["content-type"].startswith("text/html"):
        return [unescape(command) for command in re.findall("<pre>(.*?)</pre>", answer.text)]
    return re.findall(r"^  ((?:KEY|curl).*)$", answer.text, re.MULTILINE)


@pytest.mark.parametrize("auth", ["open", "keys"])
@pytest.mark.parametrize("headers", [BROWSER, TERMINAL], ids=["browser", "terminal"])
def test_the_commands_send_an_event_and_read_it_back(server: Server, tmp_path: Path, auth: str, headers: dict[str, str]) -> None:
    server.client.flushall()
    with running(server, tmp_path, projector=True, AUTH=auth) as api:
        make_keys, send, read = ["", "", "", *commands_in(httpx.get(api.url, headers=headers))][-3:]
        settings = environment(REDIS_URL=server.url, DATA_DIR=str(tmp_path), AUTH=auth)

        def answer(command: str, key: str = "") -> str:
            shell = ["sh", "-c", f"{command}"]
            done = subprocess.run(shell, env=settings | {"KEY": key}, capture_output=True, text=True, timeout=20)
            assert done.returncode == 0, done.stderr
            return done.stdout

        key = answer(f"{make_keys}; echo $KEY").strip() if make_keys else ""
        sent = wait_until(lambda: text if " 401 " not in (text := answer(send, key)) else "", "the key is known")
        wait_until(lambda: '"S123"' in answer(read, key), "the event is read back")

    assert bool(key) == (auth == "keys")
    assert " 202 " in sent.splitlines()[0] and '"accepted"' in sent


@pytest.mark.parametrize("headers", [BROWSER, TERMINAL], ids=["browser", "terminal"])
def test_the_answer_names_paths_that_there_are(api: Api, headers: dict[str, str]) -> None:
    document = httpx.get(f"{api.url}/openapi.json").json()

    paths = set(re.findall(r"\b(GET|POST) (?:<[^>]+>)?\s*(/[a-z./]*)", httpx.get(api.url, headers=headers).text))

    assert {("POST", "/api/events"), ("GET", "/readyz"), ("GET", "/metrics"), ("GET", "/openapi.json")} <= paths
    assert [pair for pair in paths if pair[0].lower() not in document["paths"].get(pair[1], {})] == []


def test_a_browser_gets_a_page_that_loads_nothing_and_runs_nothing(api: Api) -> None:
    answer = httpx.get(api.url, headers=BROWSER)

    policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["content-security-policy"].split(";"))
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert (policy.pop("default-src"), policy.pop("style-src")[:8]) == ("'none'", "'sha256-")
    assert policy == {"base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'"}
    assert not re.search(r"<script|<img|<link|<iframe|src=|url\(|@import|style=", answer.text)
    assert "http" not in re.sub(r"<pre>.*?</pre>", "", answer.text)


def test_all_others_get_text(api: Api) -> None:
    for headers in (TERMINAL, {"Accept": "application/json"}):
        answer = httpx.get(api.url, headers=headers)
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["vary"] == "accept"
        assert answer.text.startswith("Penstock ") and "<" not in answer.text


def test_the_answer_names_no_tenant(api: Api) -> None:
    name = "secret-tenant"
    httpx.post(f"{api.url}/api/events", headers={"X-Tenant-ID": name}, content=b"{}")

    assert all(name not in httpx.get(api.url, headers=headers).text for headers in (BROWSER, TERMINAL))


@pytest.mark.parametrize(
    "host", ["events.example.com", "10.0.0.1:8443", "[::1]:8000", "<b>x</b>", "x';reboot;'", "$(reboot)", "x y", "x" * 300 + "é"]
)
def test_commands_use_the_host_of_the_request_if_that_is_safe(api: Api, host: str) -> None:
    with api.connect() as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nConnection: close\r\nHost: {host}\r\n\r\n".encode())
        text = b"".join(iter(lambda: connection.recv(65_536), b"")).decode()

    is_safe = re.fullmatch(r"[A-Za-z0-9.:\[\]-]+", host) is not None
    assert f"http://{host if is_safe else f'127.0.0.1:{api.port}'}/api/events" in text
    assert is_safe or host not in text
