"""Pages of allowed origins may call the API and read every answer."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from streams import keys_of
from tests.support.events import body
from tests.support.http import Api, App, opened, running
from tests.support.servers import Server

pytestmark = pytest.mark.anyio

SHOP, OTHER = "https://shop.example", "https://other.example"
ASKED = "authorization, content-type, anonymousid, x-write-key"


@pytest.fixture
async def app(server: Server, tmp_path: Path) -> AsyncIterator[App]:
    async with opened(server, tmp_path, CORS_ORIGINS=f"{SHOP}, http://localhost:3000") as app:
        yield app


async def preflight(app: App, origin: str = SHOP, method: str = "POST") -> httpx.Response:
    asked = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": ASKED}
    return await app.client.options("/api/events", headers=asked)


def assert_may(answer: httpx.Response, origin: str = SHOP) -> None:
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "Origin" in answer.headers["vary"]


async def test_a_preflight_from_an_allowed_origin_is_accepted(app: App) -> None:
    answer = await preflight(app)

    assert (answer.status_code, answer.content) == (204, b"")
    assert_may(answer)
    assert answer.headers["access-control-allow-headers"] == ASKED
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert int(answer.headers["access-control-max-age"]) >= 600


@pytest.mark.parametrize(
    ("origin", "method"), [(OTHER, "POST"), ("null", "POST"), (f"{SHOP}.evil.example", "POST"), (SHOP, "DELETE")]
)
async def test_a_preflight_from_another_origin_is_refused(app: App, origin: str, method: str) -> None:
    answer = await preflight(app, origin, method)

    assert (answer.status_code, answer.json()["code"]) == (403, "origin-not-allowed")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers.get("access-control-allow-origin") in (None, SHOP)
    assert origin == SHOP or "access-control-allow-origin" not in answer.headers


REQUESTS: dict[int, dict[str, Any]] = {
    202: {"content": body()},
    400: {"content": b"{"},
    404: {"method": "GET", "url": "/nowhere"},
    405: {"method": "DELETE"},
    413: {"content": b"x" * 6_000_000},
    415: {"content": b"x", "headers": {"Content-Encoding": "br"}},
    422: {"content": b"{}"},
}


@pytest.mark.parametrize("status", REQUESTS)
async def test_every_answer_permits_the_page_to_read_it(app: App, status: int) -> None:
    request = {"method": "POST", "url": "/api/events"} | REQUESTS[status]
    request["headers"] = {"Origin": SHOP, "X-Tenant-ID": "acme"} | request.get("headers", {})

    answer = await app.client.request(**request)

    assert answer.status_code == status
    assert_may(answer)
    request["headers"]["Origin"] = OTHER
    assert "access-control-allow-origin" not in (await app.client.request(**request)).headers


@pytest.mark.parametrize("whose", ["the server's", "ours"])
async def test_an_unexpected_error_permits_the_page_to_read_it_too(
    server: Server, app: App, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    server.client.set(keys_of("acme").log, "in the way")
    if whose == "ours":
        monkeypatch.setattr("api.ingest.native.parse_request", None)

    answer = await app.post(body(), headers={"Origin": SHOP})

    assert (answer.status_code, answer.json()["code"]) == (500, "log-refused" if whose == "the server's" else "internal-error")
    assert_may(answer)


async def test_a_page_may_read_the_request_id(app: App) -> None:
    answer = await app.post(body(), headers={"Origin": SHOP})

    assert answer.headers["x-request-id"]
    assert "x-request-id" in answer.headers["access-control-expose-headers"]


async def test_every_page_may_send_when_that_is_set(server: Server, tmp_path: Path) -> None:
    async with opened(server, tmp_path, CORS_ORIGINS="*") as app:
        assert_may(await preflight(app, OTHER), OTHER)
        assert_may(await app.post(body(), headers={"Origin": OTHER}), OTHER)


async def test_without_origins_no_page_may_send(server: Server, tmp_path: Path) -> None:
    async with opened(server, tmp_path) as app:
        assert (await preflight(app)).status_code == 405
        assert "access-control-allow-origin" not in (await app.post(body(), headers={"Origin": SHOP})).headers


def test_every_answer_of_the_process_carries_the_security_headers(server: Server, tmp_path: Path) -> None:
    with running(server, tmp_path) as api:
        for answer in (httpx.get(f"{api.url}/healthz"), httpx.get(f"{api.url}/nowhere"), httpx.post(f"{api.url}/api/events")):
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert "server" not in answer.headers


LARGE = "x" * 40_000
REFUSED = {
    "slow": ("POST /api/events HTTP/1.1\r\nX-Tenant-ID: acme\r\n{}Content-Length: 9\r\n\r\n", 408),
    "slow head": ("POST /api/events HTTP/1.1\r\nHost: x\r\n{}X-Slow: ", 408),
    "large": (f"GET / HTTP/1.1\r\nHost: x\r\n{{}}X-Large: {LARGE}\r\n\r\n", 431),
    "not HTTP": ("GET / HTTP/1.1\r\n{}Host: x\r\nno header\r\n\r\n", 400),
}


def refused(api: Api, raw: str) -> tuple[int, httpx.Headers]:
    """The status and headers of the only answer to these bytes."""
    with api.connect() as connection:
        connection.sendall(raw.encode())
        received = b""
        while chunk := connection.recv(65_536):
            received += chunk
    head, _, rest = received.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    headers = httpx.Headers([(name, value) for name, _, value in (line.partition(b": ") for line in lines)])
    assert int(headers["content-length"]) == len(rest)
    return int(status.split()[1]), headers


def test_an_early_refusal_has_the_headers_of_every_answer(server: Server, tmp_path: Path) -> None:
    with running(server, tmp_path, CORS_ORIGINS=f"{SHOP}, http://localhost:3000", REQUEST_TIMEOUT_SECONDS=0.5) as api:
        for origin in (SHOP, OTHER, None):
            given = f"Origin: {origin}\r\n" if origin else ""
            usual = httpx.get(f"{api.url}/healthz", headers={"Origin": origin} if origin else {}).headers
            for name, (raw, status) in REFUSED.items():
                answered_status, headers = refused(api, raw.format(given))

                assert answered_status == status, name
                cross = {key: value for key, value in usual.items() if key.startswith("access-control-") or key == "vary"}
                assert cross == {
                    key: value for key, value in headers.items() if key.startswith("access-control-") or key == "vary"
                }
                assert (headers.get("access-control-allow-origin") == SHOP) == (origin == SHOP)


def test_a_refusal_is_not_taken_for_the_answer_to_the_previous_request(server: Server, tmp_path: Path) -> None:
    with running(server, tmp_path, CORS_ORIGINS=SHOP) as api, api.connect() as connection:
        connection.sendall(f"GET /healthz HTTP/1.1\r\nHost: x\r\nOrigin: {SHOP}\r\nX-Request-ID: first\r\n\r\n".encode())
        first = b""
        while not first.endswith(b"}"):
            first += connection.recv(65_536)
        connection.sendall(b"\0\0\0\r\n\r\n")
        second = connection.recv(65_536)

    assert SHOP.encode() in first and b"first" in first
    assert second.startswith(b"HTTP/1.1 400")
    assert SHOP.encode() not in second and b"first" not in second


@pytest.mark.parametrize(("proxies", "served"), [("", 3), ("10.0.0.0/8", 3), ("10.0.0.0/8, 127.0.0.0/8", 6)])
def test_only_a_trusted_proxy_may_say_which_client_sends(server: Server, tmp_path: Path, proxies: str, served: int) -> None:
    with running(server, tmp_path, MAX_CONNECTIONS_PER_ADDRESS=3, TRUSTED_PROXIES=proxies) as api:
        connections = [api.connect() for _ in range(6)]
        try:
            for number, connection in enumerate(connections):
                connection.sendall(f"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.{number}\r\n\r\n".encode())
            statuses = [connection.recv(12) for connection in connections]
        finally:
            for connection in connections:
                connection.close()

    assert statuses.count(b"HTTP/1.1 200") == served
    assert statuses.count(b"HTTP/1.1 503") == 6 - served
