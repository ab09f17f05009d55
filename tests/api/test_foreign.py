"""The ingest endpoint of foreign formats: dead letters, keys, refusals."""

import base64
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.formats import FOREIGN_ROUTES
from tests.support.events import body
from tests.support.http import App, opened, running
from tests.support.servers import Server


@pytest.fixture
async def app(server: Server, tmp_path: Path) -> AsyncIterator[App]:
    async with opened(server, tmp_path) as app:
        yield app


def message(**more: Any) -> dict[str, Any]:
    """A Segment message."""
    given = {"type": "track", "event": "Signed Up", "userId": "u1", "messageId": "m1", "timestamp": "2026-01-01T10:00:00Z"}
    return {name: value for name, value in (given | more).items() if value is not None}


async def sent(app: App, *messages: Any, key: str = "acme", packed: bool = False, **more: Any) -> httpx.Response:
    body = json.dumps({"batch": messages, "sentAt": "2026-01-01T10:00:01Z", "writeKey": key} | more).encode()
    return await app.client.post("/v1/batch", content=gzip.compress(body) if packed else body)


def tables(app: App, table: str) -> list[dict[str, Any]]:
    return list(app.store.tables().rows(table, "acme"))


async def test_a_message_becomes_an_event(app: App) -> None:
    answer = await sent(app, message(properties={"plan": "pro"}, anonymousId="a1"))
    await app.project()

    [row] = tables(app, "events")
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    assert (row["event_type"], row["event_id"], row["session_id"]) == ("Signed Up", "m1", "")
    assert row["timestamp"] == "2026-01-01T10:00:00Z"
    assert 0 <= row["received_at_us"] - 1_000_000 - row["timestamp_us"] < 1_000_000  # sent a second after it happened
    assert json.loads(row["properties"]) == {
        "type": "track",
        "user_id": "u1",
        "anonymous_id": "a1",
        "properties": {"plan": "pro"},
    }


async def test_a_bad_message_is_a_dead_letter_and_its_neighbours_are_accepted(app: App) -> None:
    answer = await sent(app, message(), message(event=None, messageId="m2"), 7, message(messageId="m3"))
    again = await sent(
        app, message(), message(event=None, messageId="m2"), 7, message(messageId="m3"), sentAt="2026-01-01T11:00:00Z"
    )
    await app.project()

    held = tables(app, "quarantine")
    assert (answer.status_code, again.status_code) == (200, 200)
    assert [row["event_id"] for row in tables(app, "events")] == ["m1", "m3"]
    assert [(row["reason"], row["detail"]) for row in held] == [
        ("invalid", "event_type: is missing"),
        ("invalid", "must be a JSON object"),
    ]
    assert json.loads(held[0]["body"]) == message(event=None, messageId="m2")


async def test_another_message_with_the_same_id_is_a_dead_letter_once(app: App) -> None:
    await sent(app, message())
    answers = [await sent(app, message(event="Other"), message(messageId="m2")) for _ in range(2)]
    await app.project()

    [held] = tables(app, "quarantine")
    assert [answer.status_code for answer in answers] == [200, 200]
    assert (held["reason"], held["detail"]) == ("conflict", "another event with this identity is at position 1")
    assert [row["event_id"] for row in tables(app, "events")] == ["m1", "m2"]


async def test_a_gzip_body_is_recognised_by_its_bytes(app: App) -> None:
    answer = await sent(app, message(), packed=True)

    assert (answer.status_code, await app.project()) == (200, 1)


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [(b"{", 400, "tenant-missing"), (b"\x1f\x8bx", 400, "not-gzip"), (b'{"batch": []}', 400, "tenant-missing")],
    ids=str,
)
async def test_a_refusal_has_the_members_that_sdks_read(app: App, body: bytes, status: int, error: str) -> None:
    answer = await app.client.post("/v1/batch", content=body)

    refusal = answer.json()
    assert (answer.status_code, refusal["code"], refusal["error"], refusal["status"]) == (status, status, error, 0)
    assert refusal["message"] == refusal["detail"]


async def test_a_limited_request_may_be_sent_again(server: Server, tmp_path: Path) -> None:
    async with opened(server, tmp_path, EVENTS_PER_SECOND=1) as app:
        answer = await sent(app, message(), message(messageId="m2"))

    assert (answer.status_code, answer.json()["error"]) == (429, "limited")
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Basic " + base64.b64encode(b"acme:").decode()},
        {"Authorization": "Bearer acme"},
        {"X-Write-Key": "acme"},
        {"X-Tenant-ID": "acme"},
    ],
    ids=str,
)
async def test_a_key_may_be_in_every_place_that_sdks_use(app: App, headers: dict[str, str]) -> None:
    answer = await app.client.post("/v1/track", content=json.dumps(message()).encode(), headers=headers)

    assert answer.status_code == 200
    assert (await app.log.summaries())[0].tenant == "acme"


async def test_a_request_with_too_many_messages_is_refused(app: App) -> None:
    answer = await sent(app, *range(10_001))

    assert (answer.status_code, answer.json()["error"]) == (413, "too-many-events")
    assert "(limit 10000, value 10001)" in answer.json()["detail"]
    assert await app.project() == 0


async def test_an_overload_is_refused_with_the_limit_and_the_value(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.append.WAITING_LIMIT_BYTES", 100)

    foreign = await sent(app, message())
    native = await app.post(body())

    assert (foreign.status_code, native.status_code) == (503, 503)
    assert "(limit 100, value " in foreign.json()["detail"]
    assert native.json()["limit"] == 100 < native.json()["value"]
    assert foreign.headers["retry-after"] == native.headers["retry-after"] == "1"


async def test_an_unknown_call_is_refused_with_the_known_calls(app: App) -> None:
    answer = await app.client.post("/v1/tarck", content=b"{}", headers={"X-Tenant-ID": "acme"})

    assert (answer.status_code, answer.json()["error"]) == (400, "not-understood")


async def test_a_message_without_a_time_gets_the_time_of_its_arrival(app: App) -> None:
    answers = [await sent(app, message(timestamp=None)) for _ in range(2)]
    await app.project()

    [row] = tables(app, "events")
    assert [answer.status_code for answer in answers] == [200, 200]
    assert row["timestamp"] == ""
    assert 0 <= row["received_at_us"] - row["timestamp_us"] < 1_000_000


SHOP = "https://shop.example"
ASKED = "authorization, content-type, anonymousid, sentat, x-write-key"
PATHS = [
    (method, foreign.path.replace("{call}", "track").replace("{key}", "-"))
    for foreign in FOREIGN_ROUTES
    for method in foreign.methods
]
PLACES = pytest.mark.parametrize(("method", "path"), PATHS, ids=str)


@PLACES
async def test_a_page_may_send_to_foreign_endpoints_and_read_a_refusal(
    server: Server, tmp_path: Path, method: str, path: str
) -> None:
    async with opened(server, tmp_path, CORS_ORIGINS=SHOP, MAX_REQUEST_BYTES=100_000, MAX_EVENT_BYTES=1_000) as app:
        asked = {"Origin": SHOP, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": ASKED}
        preflight = await app.client.options(path, headers=asked)
        keyless = await app.client.request(method, path, content=b"{}", headers={"Origin": SHOP})
        too_large = await app.client.request(
            method, path, content=b"x" * 100_001, headers={"Origin": SHOP, "X-Write-Key": "acme"}
        )

        assert [answer.status_code for answer in (preflight, keyless, too_large)] == [204, 400, 413]
        assert preflight.headers["access-control-allow-headers"] == ASKED
        for answer in (preflight, keyless, too_large):
            assert answer.headers["access-control-allow-origin"] == SHOP
            assert answer.headers["access-control-allow-credentials"] == "true"


def test_an_answer_is_sent_in_one_packet(server: Server, tmp_path: Path) -> None:
    with running(server, tmp_path) as api:
        for path, ending in (("/v1/track", b'{"success":true}'), ("/api/v1/events", b"\r\n\r\n"), ("/v1/tarck", b"}")):
            body = json.dumps(message() | {"specversion": "1.0", "id": "1", "source": "/shop"}).encode()
            request = (
                f"POST {path} HTTP/1.1\r\nHost: x\r\nX-Write-Key: acme\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
            )
            with api.connect() as connection:
                for _ in range(20):
                    connection.sendall(request)
                    piece = connection.recv(65_536)

                    assert piece.startswith(b"HTTP/1.1 ")
                    assert piece.endswith(ending)
