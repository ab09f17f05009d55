"""Amplitude's uploads become events, and its SDKs get the right answers."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.http import App, opened
from tests.support.servers import Server

MOMENT_MS = 1_767_261_600_123  # 2026-01-01T10:00:00.123Z
ENDS = ("/2/httpapi", "/batch")


@pytest.fixture
async def app(server: Server, tmp_path: Path) -> AsyncIterator[App]:
    async with opened(server, tmp_path) as app:
        yield app


def event(**more: Any) -> dict[str, Any]:
    """An event as an SDK sends it."""
    given = {"event_type": "Signed Up", "user_id": "u1", "device_id": "d1", "insert_id": "i1", "time": MOMENT_MS}
    return {name: value for name, value in (given | more).items() if value is not None}


async def sent(app: App, *events: Any, path: str = "/2/httpapi", **more: Any) -> httpx.Response:
    return await app.client.post(path, content=json.dumps({"api_key": "acme", "events": events} | more).encode())


async def rows(app: App, table: str = "events") -> list[dict[str, Any]]:
    await app.project()
    return list(app.store.tables().rows(table, "acme"))


@pytest.mark.parametrize("path", ENDS)
async def test_an_upload_becomes_events(app: App, path: str) -> None:
    one = event(session_id=MOMENT_MS - 5, event_properties={"plan": "pro"}, event_id=4)
    answer = await sent(app, one, event(insert_id="i2", session_id=-1), path=path)

    row, other = await rows(app)
    members = answer.json()
    assert (answer.status_code, members["code"], members["events_ingested"]) == (200, 200, 2)
    assert members["payload_size_bytes"] == len(answer.request.content)
    assert abs(members["server_upload_time"] - row["received_at_us"] // 1_000) < 5_000
    assert (row["event_type"], row["event_id"], row["session_id"]) == ("Signed Up", "2:i1:d1", str(MOMENT_MS - 5))
    assert (row["timestamp"], row["timestamp_us"]) == ("2026-01-01T10:00:00.123000Z", MOMENT_MS * 1_000)
    assert json.loads(row["properties"]) == {
        "user_id": "u1",
        "anonymous_id": "d1",
        "event_properties": {"plan": "pro"},
        "event_id": 4,
    }
    assert (other["event_id"], other["session_id"]) == ("2:i2:d1", "")


async def test_different_pairs_of_ids_give_different_event_ids(app: App) -> None:
    pairs = [("a", "b:c"), ("a:b", "c"), ("a", "b"), ("a", None), ("a:b", None), ("a" * 200, "b" * 200), ("a" * 200, "b" * 199)]
    for _ in range(2):
        await sent(app, *(event(insert_id=insert_id, device_id=device_id) for insert_id, device_id in pairs))

    assert len({row["event_id"] for row in await rows(app)}) == len(await rows(app)) == len(pairs)
    assert await rows(app, "quarantine") == []


async def test_an_event_without_an_id_is_identified_by_its_content(app: App) -> None:
    one = event(insert_id=None)
    differing: dict[str, Any] = {
        "user_id": "u2",
        "device_id": "d2",
        "time": 1,
        "session_id": 7,
        "event_type": "Left",
        "ip": "::1",
    }
    others = [event(insert_id=None, **{name: value}) for name, value in differing.items()]
    for _ in range(2):
        await sent(app, one, *others)

    assert len(await rows(app)) == 1 + len(others)


async def test_a_clock_is_corrected_by_the_time_of_sending(app: App) -> None:
    await sent(app, event(), client_upload_time="2026-01-01T10:00:01.123Z")

    [row] = await rows(app)
    assert row["timestamp"] == "2026-01-01T10:00:00.123000Z"
    assert 0 <= row["received_at_us"] - 1_000_000 - row["timestamp_us"] < 1_000_000


async def test_an_event_without_a_time_gets_the_time_of_its_arrival(app: App) -> None:
    await sent(app, event(time=None))

    [row] = await rows(app)
    assert row["timestamp"] == ""
    assert 0 <= row["received_at_us"] - row["timestamp_us"] < 1_000_000


async def test_an_identify_event_names_user_and_device(app: App) -> None:
    await sent(app, event(event_type="$identify", user_properties={"$set": {"name": "Ada"}}))

    [row] = await rows(app)
    properties = json.loads(row["properties"])
    assert row["event_type"] == "$identify"
    assert properties == {"user_id": "u1", "anonymous_id": "d1", "user_properties": {"$set": {"name": "Ada"}}}


async def test_a_bad_event_is_a_dead_letter_and_its_neighbours_are_accepted(app: App) -> None:
    bad = [7, event(insert_id="b1", event_type=None), event(insert_id="b2", time="noon"), event(insert_id="b3", user_id=[1])]
    answers = [await sent(app, *bad, event(), event(insert_id="b4", time=10**17)) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert [row["event_id"] for row in await rows(app)] == ["2:i1:d1"]
    assert [row["detail"] for row in await rows(app, "quarantine")] == [
        "must be a JSON object",
        "event_type: is missing",
        "time: must be milliseconds since 1970, a whole number",
        "user_id: must be a string or a whole number",
        "timestamp: must lie between the years 1 and 9999",
    ]


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"events": {}}', b"\xff"], ids=str)
async def test_an_unreadable_upload_is_not_sent_again(app: App, body: bytes) -> None:
    answer = await app.client.post("/2/httpapi", content=body, headers={"X-Tenant-ID": "acme"})

    refusal = answer.json()
    assert (answer.status_code, refusal["code"], refusal["error"]) == (400, 400, "not-understood")
    assert refusal["missing_field"] == "events"


@pytest.mark.parametrize("path", ENDS)
@pytest.mark.parametrize("key", [None, "ps_w_nobody's", ""], ids=str)
async def test_a_wrong_key_is_reported_as_the_sdks_expect(server: Server, tmp_path: Path, path: str, key: str | None) -> None:
    async with opened(server, tmp_path, AUTH="keys") as app:
        answer = await sent(app, event(), path=path, api_key=key)

    refusal = answer.json()
    assert (answer.status_code, refusal["code"], refusal["missing_field"]) == (400, 400, "api_key")
    assert refusal["error"] == f"Invalid API key: credential-{'unknown' if key else 'missing'}"


async def test_a_limited_request_may_be_sent_again(server: Server, tmp_path: Path) -> None:
    async with opened(server, tmp_path, EVENTS_PER_SECOND=1) as app:
        answer = await sent(app, event(), event(insert_id="i2"))

    refusal = answer.json()
    assert (answer.status_code, refusal["code"], refusal["error"]) == (429, 429, "limited")
    assert "missing_field" not in refusal
