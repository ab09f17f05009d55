"""Every answer, and every line logged for it, has a request id."""

import json
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from api.http.access_log import LINES_PER_SECOND, LogLineBudget
from api.http.request_ids import RequestIds, request_id_of
from streams import keys_of
from tests.support.events import body
from tests.support.http import Api, free_port, logged_in, process_of, running, wait_until
from tests.support.servers import Server

ACME = {"X-Tenant-ID": "acme"}
SANE = ["a", "A-Z_a.z-0.9", "x" * 64, "0190163d-8694-739b-aea5-966c26f8ad91"]
ODD = {
    "empty": b"X-Request-ID:\r\n",
    "65 characters": b"X-Request-ID: " + b"x" * 65 + b"\r\n",
    "two": b"X-Request-ID: one\r\nX-Request-ID: two\r\n",
    "the same twice": b"X-Request-ID: one\r\nx-request-id: one\r\n",
    "a newline": b"X-Request-ID: one\r\n two\r\n",
    "a header in it": b"X-Request-ID: one%0d%0aSet-Cookie: x\r\n",
    "not ASCII": "X-Request-ID: é\r\n".encode(),
    "latin": "X-Request-ID: é\r\n".encode("latin-1"),
    "a space": b"X-Request-ID: one two\r\n",
    "an underscored name": b"X_Request_ID: one\r\n",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server("valkey", tmp_path_factory.mktemp("server")).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def api(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(server, tmp_path_factory.mktemp("api"), REQUEST_TIMEOUT_SECONDS=0.5) as api:
        yield api


def id_in(connection: socket.socket, raw: bytes) -> str:
    """The request id of the first answer to these bytes."""
    connection.sendall(raw)
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = connection.recv(65_536)
        assert chunk, received
        received += chunk
    [line] = [line for line in received.partition(b"\r\n\r\n")[0].split(b"\r\n") if line.lower().startswith(b"x-request-id:")]
    return line.partition(b": ")[2].decode("ascii")


# -- the id ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sane", SANE)
def test_the_clients_request_id_is_used(api: Api, sane: str) -> None:
    for path in ("/healthz", "/nowhere", "/api/events"):
        assert httpx.get(f"{api.url}{path}", headers={"X-Request-ID": sane}).headers.get_list("x-request-id") == [sane]


@pytest.mark.parametrize("odd", ODD)
def test_an_unsafe_or_ambiguous_request_id_is_replaced(api: Api, odd: str) -> None:
    with api.connect() as connection:
        request_id = id_in(connection, b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + ODD[odd] + b"\r\n")

    assert request_id_of([(b"x-request-id", request_id.encode())]) == request_id
    assert "one" not in request_id and "x" * 9 not in request_id


@given(st.lists(st.binary(max_size=70), max_size=3))
def test_every_request_id_is_safe_in_headers_and_logs(values: list[bytes]) -> None:
    request_id = request_id_of([(b"x-request-id", value) for value in values])

    assert (
        request_id.isascii() and 1 <= len(request_id) <= 64 and not set(request_id) - set("-._") - set(map(chr, range(48, 123)))
    )
    assert request_id.encode() in values or request_id != request_id_of([])


def test_generated_ids_differ_between_requests_and_processes(server: Server, api: Api, tmp_path: Path) -> None:
    with running(server, tmp_path) as other:
        ids = [httpx.get(f"{process.url}/healthz").headers["x-request-id"] for process in (api, other) for _ in range(5)]

    assert len(set(ids)) == 10


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"POST /api/events HTTP/1.1\r\n%bX-Tenant-ID: acme\r\nContent-Length: 9\r\n\r\n", id="408"),
        pytest.param(b"GET / HTTP/1.1\r\n%bX-Large: " + b"x" * 40_000 + b"\r\n\r\n", id="431"),
        pytest.param(b"GET / HTTP/1.1\r\n%bHost: x\r\nno header\r\n\r\n", id="400"),
    ],
)
def test_an_early_refusal_has_the_clients_request_id(api: Api, raw: bytes) -> None:
    with api.connect() as one, api.connect() as other:
        assert id_in(one, raw % b"X-Request-ID: mine\r\n") == "mine"
        assert id_in(other, raw % ODD["two"]) not in ("one", "two", "mine")


# -- log lines ---------------------------------------------------------------------------------------------------------


def test_a_failure_is_one_log_line_with_the_clients_request_id(server: Server, api: Api) -> None:
    server.client.set(keys_of("broken").log, "in the way")
    before = len(api.logged)

    answer = httpx.post(
        f"{api.url}/api/events?q=hidden", content=body(), headers={"X-Tenant-ID": "broken", "X-Request-ID": "mine-1"}
    )
    [line] = wait_until(lambda: api.logged[before:], "it is logged")

    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "mine-1")
    assert line.pop("timestamp")
    assert line == {
        "event": "failed",
        "level": "error",
        "logger": "api.requests",
        "request_id": "mine-1",
        "method": "POST",
        "path": "/api/events",
        "status": 500,
        "code": "log-refused",
    }


def test_a_503_is_a_warning_and_nothing_else_is_logged(api: Api) -> None:
    before = len(api.logged)
    for request in (
        {"url": "/healthz"},
        {"url": "/nowhere"},
        {"url": "/api/events"},
        {"url": "/api/events?after=x", "headers": ACME},
    ):
        assert httpx.get(api.url + str(request.pop("url")), **request).status_code < 500

    answer = httpx.get(f"{api.url}/api/events?after=999", headers=ACME, timeout=10)
    [line] = wait_until(lambda: api.logged[before:], "it is logged")

    assert (line["level"], line["status"], line["code"]) == ("warning", 503, "not-yet-projected")
    assert line["request_id"] == answer.headers["x-request-id"]


def test_bytes_that_are_no_request_are_not_logged(api: Api) -> None:
    before = api.said
    for raw in (b"\0\0\r\n\r\n", b"GET /healthz HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", b"POST"):
        with api.connect() as connection:
            id_in(connection, raw)

    assert api.said == before


def test_with_an_access_log_every_request_is_a_log_line(server: Server, tmp_path: Path) -> None:
    server.client.set(keys_of("broken").log, "in the way")
    with running(server, tmp_path, ACCESS_LOG=1) as api:
        httpx.post(f"{api.url}/api/events?q=hidden", content=body(), headers=ACME | {"X-Request-ID": "good"})
        httpx.get(f"{api.url}/caf%C3%A9%0A?q=hidden", headers={"X-Request-ID": "lost"})
        for i in range(LINES_PER_SECOND * 2):
            httpx.post(f"{api.url}/api/events", content=body(), headers={"X-Tenant-ID": "broken", "X-Request-ID": f"bad-{i}"})
    lines = {
        line["request_id"]: line for line in api.logged if "request_id" in line
    }  # the process has ended, so all lines are there

    assert "hidden" not in api.said
    assert [line["level"] for line in lines.values() if line["request_id"] in ("good", "lost", "bad-0")] == [
        "info",
        "info",
        "error",
    ]
    assert sum(name.startswith("bad-") for name in lines) == LINES_PER_SECOND * 2
    good, lost = lines["good"], lines["lost"]
    assert (good["method"], good["path"], good["status"], good["client"]) == ("POST", "/api/events", 202, "127.0.0.1")
    assert 0 < good["milliseconds"] < 10_000
    assert (lost["method"], lost["path"], lost["status"]) == ("GET", "/caf%C3%A9%0A", 404)


# -- unexpected errors -------------------------------------------------------------------------------------------------

BUGS = """
import api.app, api.ingest.native, api.openapi.operations
from starlette.responses import StreamingResponse
from starlette.routing import Route

async def half(request):
    async def chunks():
        yield b"half"
        raise RuntimeError("the other half")
    return StreamingResponse(chunks())

api.app.ROUTES.append(Route("/half", half))
api.openapi.operations.OPERATIONS["GET /half"] = api.openapi.operations.OPERATIONS["GET /healthz"]
api.ingest.native.parse_request = None
from api.__main__ import main
main([])
"""


@contextmanager
def buggy(server: Server, folder: Path) -> Iterator[Api]:
    """The real process, with a bug in a route and an answer that breaks off."""
    port = free_port()
    with process_of(("-c", BUGS), folder, "api.out", REDIS_URL=server.url, DATA_DIR=str(folder), PORT=port) as process:
        api = Api(process, port, folder / "api.out")
        wait_until(lambda: "Try it" in api.said, "it serves")
        yield api


def test_an_unexpected_error_is_logged_once_with_its_traceback_and_request_id(server: Server, tmp_path: Path) -> None:
    with buggy(server, tmp_path) as api:
        answer = httpx.post(f"{api.url}/api/events", content=body(), headers=ACME | {"X-Request-ID": "ours"})
        after = httpx.get(f"{api.url}/healthz")
        [line] = wait_until(lambda: api.logged, "it is logged")

    assert (answer.status_code, answer.json()["code"], answer.headers["x-request-id"]) == (500, "internal-error", "ours")
    assert after.status_code == 200
    assert (line["request_id"], line["path"], line["status"], line["level"]) == ("ours", "/api/events", 500, "error")
    assert line["exception"].startswith("Traceback") and "'NoneType' object is not callable" in line["exception"]


def test_an_answer_that_breaks_off_is_logged_with_the_request_id(server: Server, tmp_path: Path) -> None:
    with buggy(server, tmp_path) as api:
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{api.url}/half", headers={"X-Request-ID": "ours"})
        [line] = wait_until(lambda: api.logged, "it is logged")

    assert (line["request_id"], line["logger"], line["event"]) == ("ours", "uvicorn.error", "Exception in ASGI application")
    assert "the other half" in line["exception"]


# -- floods ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(min_value=1, max_value=4), max_size=100).map(sorted))
def test_of_many_failures_a_few_per_second_are_logged_and_the_others_counted(seconds: list[int]) -> None:
    budget, logged, counted = LogLineBudget(), list[int](), 0
    for second in seconds:
        budget, skipped = budget.spend(second)
        if skipped is not None:
            logged.append(second)
            counted += skipped

    assert all(logged.count(second) == min(seconds.count(second), LINES_PER_SECOND) for second in set(seconds))
    assert len(logged) + counted + budget.skipped == len(seconds)


@pytest.mark.anyio
async def test_a_flood_of_503_hides_no_500(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        status = 500 if scope["raw_path"] == b"/rare" else 503
        await send({"type": "http.response.start", "status": status})
        await send({"type": "http.response.body", "body": b"no problem"})

    async def drop(message: Any) -> None:
        pass

    async def never() -> Any:
        raise AssertionError

    app = RequestIds(fails)
    for path in (b"/many",) * 3_000 + (b"/rare",):
        await app({"type": "http", "method": "GET", "raw_path": path, "headers": [], "client": None}, never, drop)

    logged = [(record.status, record.code, record.levelno) for record in caplog.records]  # type: ignore[attr-defined]
    assert logged[-1] == (500, None, logging.ERROR)
    assert LINES_PER_SECOND <= len(logged) - 1 <= LINES_PER_SECOND * 3


def test_every_log_line_is_json(api: Api) -> None:
    assert all(json.dumps(line) for line in logged_in(api.said))
