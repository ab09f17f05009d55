"""Segment's messages become events: ids, traits, times, keys, bodies."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.http import App, opened
from tests.support.servers import Server


@pytest.fixture
async def app(server: Server, tmp_path: Path) -> AsyncIterator[App]:
    async with opened(server, tmp_path) as app:
        yield app


def message(**more: Any) -> dict[str, Any]:
    given = {"type": "track", "event": "Signed Up", "userId": "u1", "messageId": "m1", "timestamp": "2026-01-01T10:00:00Z"}
    return given | more


async def post(app: App, content: Any, path: str = "/v1/track", **headers: str) -> httpx.Response:
    return await app.client.post(path, content=json.dumps(content).encode(), headers=headers or {"X-Write-Key": "acme"})


async def row_of(app: App, content: Any, path: str = "/v1/track") -> dict[str, Any]:
    """The row of a message, its properties decoded."""
    answer = await post(app, content, path)
    await app.project()
    [row] = app.store.tables().rows("events", "acme")
    assert answer.status_code == 200
    return dict(row) | {"properties": json.loads(row["properties"])}


CALLS = ["track", "identify", "page", "screen", "group", "alias"]


@pytest.mark.parametrize("path", [*CALLS, *(call[0] for call in CALLS)])
async def test_the_path_gives_the_type_of_a_message_without_one(app: App, path: str) -> None:
    row = await row_of(app, message(type=None, writeKey="other", sentAt="2026-01-01T10:00:01Z"), f"/v1/{path}/")

    kind = next(call for call in CALLS if call[0] == path[0])
    assert row["event_type"] == ("Signed Up" if kind == "track" else kind)
    assert row["properties"] == {"type": kind, "user_id": "u1"} | ({} if kind == "track" else {"event": "Signed Up"})


@pytest.mark.parametrize(
    ("given", "known"),
    [
        ({"userId": 7, "anonymousId": "a1"}, {"user_id": "7", "anonymous_id": "a1"}),
        ({"userId": 0, "anonymousId": ""}, {"user_id": "0"}),
        ({"userId": None, "anonymousId": "a1"}, {"anonymous_id": "a1"}),
        ({"userId": "", "anonymousId": True}, {}),
        ({"userId": "u2", "previousId": 5}, {"user_id": "u2", "previous_id": "5"}),
    ],
    ids=str,
)
async def test_the_actor_may_be_missing_or_a_number(app: App, given: dict[str, Any], known: dict[str, str]) -> None:
    row = await row_of(app, message(**given))

    assert row["properties"] == {"type": "track"} | known


@pytest.mark.parametrize(
    "given",
    [
        {"traits": {"plan": "pro"}},
        {"context": {"traits": {"plan": "pro"}}},
        {"traits": None, "context": {"traits": {"plan": "pro"}}},
        {"traits": {"plan": "pro"}, "context": {"ip": "::1"}},
    ],
    ids=str,
)
async def test_traits_may_be_in_the_context(app: App, given: dict[str, Any]) -> None:
    row = await row_of(app, message(type="identify", event=None, **given))

    assert row["properties"]["traits"] == {"plan": "pro"}
    assert "traits" not in row["properties"].get("context", {})


@pytest.mark.parametrize(("given", "session"), [(1_700_000_000_123, "1700000000123"), ("S1", "S1"), (None, ""), ({}, "")])
async def test_the_session_is_the_one_that_rudderstack_sends(app: App, given: Any, session: str) -> None:
    row = await row_of(app, message(context={"sessionId": given, "ip": "::1"}))

    assert row["session_id"] == session
    assert row["properties"]["context"]["ip"] == "::1"


@pytest.mark.parametrize(
    ("given", "timestamp"),
    [
        ({"originalTimestamp": "2026-01-01T09:00:00Z"}, "2026-01-01T10:00:00Z"),
        ({"originalTimestamp": "2026-01-01T09:00:00Z", "timestamp": None}, "2026-01-01T09:00:00Z"),
    ],
)
async def test_the_time_may_be_the_original_timestamp(app: App, given: dict[str, Any], timestamp: str) -> None:
    row = await row_of(app, message(**given))

    assert row["timestamp"] == timestamp
    assert row["properties"] == {"type": "track", "user_id": "u1"}


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-8"])
async def test_a_body_is_read_by_its_content_and_not_by_its_content_type(app: App, kind: str) -> None:
    headers = {"Content-Type": kind, "Authorization": "Basic " + base64.b64encode(b"acme:").decode()}
    answer = await post(app, {"batch": [message()]}, "/v1/b", **headers)

    assert (answer.status_code, answer.json(), await app.project()) == (200, {"success": True}, 1)


@pytest.mark.parametrize(
    ("path", "content", "headers"),
    [
        ("/v1/track", message(writeKey="acme"), {}),
        ("/v1/batch", {"batch": [message()], "writeKey": "acme"}, {}),
        ("/beacon/v1/batch?writeKey=acme", {"batch": [message()]}, {}),
        ("/v1/track", message(writeKey="other"), {"Authorization": "Basic " + base64.b64encode(b"acme:").decode()}),
        ("/api/s/track", message(), {"X-Write-Key": "acme:secret"}),
    ],
    ids=str,
)
async def test_a_key_is_found_in_every_place_that_sdks_use(app: App, path: str, content: Any, headers: dict[str, str]) -> None:
    answer = await app.client.post(path, content=json.dumps(content).encode(), headers=headers)

    assert answer.status_code == 200
    assert [summary.tenant for summary in await app.log.summaries()] == ["acme"]


@pytest.mark.parametrize("path", ["/api/s/track", "/api/s/s2s/track", "/api/s/track/"])
async def test_jitsu_gets_the_answer_that_it_expects(app: App, path: str) -> None:
    answer = await post(app, message(), path)

    assert (answer.status_code, answer.json(), await app.project()) == (200, {"ok": True}, 1)


async def test_an_id_may_be_a_number_and_without_one_the_content_identifies_a_message(app: App) -> None:
    named = [message(messageId=7), message(messageId=None), message(messageId=""), message(messageId=None, userId="u2")]
    for sent_at in ("2026-01-01T10:00:01Z", "2026-01-01T11:00:00Z"):
        answer = await post(app, {"batch": named, "sentAt": sent_at}, "/v1/batch")
        assert answer.status_code == 200
    await app.project()

    ids = [row["event_id"] for row in app.store.tables().rows("events", "acme")]
    assert ids[0] == "7"
    assert len(ids) == 3  # the two messages without an id are equal
    assert all(name.startswith("content:") for name in ids[1:])


@pytest.mark.parametrize(
    ("bad", "detail"),
    [
        ({"event": None}, "event_type: is missing"),
        ({"event": ""}, "event_type: must not be empty"),
        ({"event": 7}, "event_type: must be a string"),
        ({"type": "trakc"}, "type: must be one of"),
        ({"type": ["track"]}, "type: must be one of"),
        ({"messageId": {"a": 1}}, "event_id: must be a string"),
        ({"messageId": "x" * 257}, "event_id: is longer than 256 bytes"),
        ({"timestamp": "yesterday"}, "timestamp: must be an RFC 3339"),
        ({"properties": {"total": 2**64}}, "holds an integer that does not fit"),
    ],
    ids=str,
)
async def test_a_message_that_is_no_event_is_one_dead_letter_however_often_it_is_sent(
    app: App, bad: dict[str, Any], detail: str
) -> None:
    for sent_at in ("2026-01-01T10:00:01Z", "2026-01-01T11:00:00Z"):
        answer = await post(app, message(**bad) | {"sentAt": sent_at})
        assert answer.status_code == 200
    await app.project()

    [held] = app.store.tables().rows("quarantine", "acme")
    assert held["reason"] == "invalid"
    assert held["detail"].startswith(detail)
