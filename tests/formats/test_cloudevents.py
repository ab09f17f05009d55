"""CloudEvents in all three modes become events."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.formats.cloudevents import event_of
from api.formats.format import OpenedRequest
from tests.support.http import App, opened
from tests.support.servers import Server

PATH = "/api/v1/events"
BATCH, ONE = "application/cloudevents-batch+json", "application/cloudevents+json; charset=utf-8"


@pytest.fixture
async def app(server: Server, tmp_path: Path) -> AsyncIterator[App]:
    async with opened(server, tmp_path) as app:
        yield app


def event(**more: Any) -> dict[str, Any]:
    known = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.placed", "time": "2026-01-01T10:00:00Z"}
    return {name: value for name, value in (known | more).items() if value is not None}


async def post(app: App, content: Any, **headers: Any) -> httpx.Response:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    named: dict[str, Any] = {name.replace("_", "-"): value for name, value in headers.items()}
    return await app.client.post(PATH, content=body, headers={"Authorization": "Bearer acme"} | named)


async def rows(app: App, table: str = "events") -> list[dict[str, Any]]:
    await app.project()
    rows = [dict(row) for row in app.store.tables().rows(table, "acme")]
    return [row | {"properties": json.loads(row["properties"])} if "properties" in row else row for row in rows]


async def test_a_structured_event_becomes_an_event(app: App) -> None:
    answer = await post(app, event(subject="u1", data={"total": 7}, region="eu"), content_type=ONE)

    [row] = await rows(app)
    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-length" not in answer.headers and "content-type" not in answer.headers
    assert (row["event_type"], row["event_id"], row["session_id"]) == ("order.placed", "/shop 1", "u1")
    assert (row["timestamp"], row["timestamp_us"]) == ("2026-01-01T10:00:00Z", 1_767_261_600_000_000)
    assert row["properties"] == {"specversion": "1.0", "id": "1", "source": "/shop", "region": "eu", "data": {"total": 7}}


async def test_events_of_a_batch_are_in_the_tables_once_and_a_bad_event_is_a_dead_letter(app: App) -> None:
    batch = [event(), event(id="2"), event(id=None), event(), 7]
    for _ in range(2):
        answer = await post(app, batch, content_type=BATCH)
        assert answer.status_code == 204

    assert [row["event_id"] for row in await rows(app)] == ["/shop 1", "/shop 2"]
    assert [row["detail"] for row in await rows(app, "quarantine")] == ["id: is missing", "must be a JSON object"]


BINARY = {
    "ce_specversion": "1.0",
    "ce_id": "1",
    "ce_source": "/shop",
    "ce_type": "order.placed",
    "ce_time": "2026-01-01T10:00:00Z",
}
DATA: list[tuple[str, bytes, dict[str, Any]]] = [
    ("application/json", b' {"total": 7}', {"data": {"total": 7}}),
    ("application/json; charset=utf-8", b"7", {"data": 7}),
    ("application/vnd.shop+json", b'"x"', {"data": "x"}),
    ("application/json", b"{oops", {"data": "{oops"}),
    ("text/plain", b"7", {"data": "7"}),
    ("application/xml", "<ü/>".encode(), {"data": "<ü/>"}),
    ("text/plain", b"\xff", {"data_base64": "/w=="}),
    ("application/octet-stream", b"abc", {"data_base64": "YWJj"}),
    ("application/jsonish", b"{}", {"data_base64": "e30="}),
    ("", b"[1]", {"data": [1]}),
    ("", b"hello", {"data": "hello"}),
    ("text/plain", b"", {}),
]


@pytest.mark.parametrize(("kind", "body", "data"), DATA, ids=str)
async def test_a_binary_event_keeps_its_body_by_its_type(app: App, kind: str, body: bytes, data: dict[str, Any]) -> None:
    answer = await post(app, body, **BINARY, **({"content_type": kind} if kind else {}))

    [row] = await rows(app)
    assert answer.status_code == 204
    assert (row["event_id"], row["event_type"], row["timestamp"]) == ("/shop 1", "order.placed", "2026-01-01T10:00:00Z")
    attributes = {"specversion": "1.0", "id": "1", "source": "/shop"} | ({"datacontenttype": kind} if kind else {})
    assert row["properties"] == attributes | data


async def test_a_binary_event_equals_the_structured_event(app: App) -> None:
    structured = event(subject="Euro € 😀", datacontenttype="application/json", data={"total": 7})
    await post(app, structured, content_type=ONE)
    await post(app, b'{"total": 7}', **BINARY, ce_subject="Euro%20%E2%82%AC%20%F0%9F%98%80", content_type="application/json")

    [row] = await rows(app)
    assert row["session_id"] == "Euro € 😀"
    assert await rows(app, "quarantine") == []


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("a%20b", "a b"),
        ('"a \\"b\\" %C3%BC"', 'a "b" ü'),
        ("100%25", "100%"),
        ("%2525", "%25"),
        ("50%zz", "50%zz"),
        ("ü".encode(), "ü"),
    ],
)
async def test_a_header_is_decoded_once(app: App, sent: str | bytes, meant: str) -> None:
    assert (await post(app, b"", **BINARY, ce_subject=sent)).status_code == 204
    assert [row["session_id"] for row in await rows(app)] == [meant]


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"{", {}),
        (b"", {}),
        (b"[1,", {"content_type": BATCH}),
        (b"<event/>", {"content_type": "application/cloudevents+xml"}),
        (b"", BINARY | {"ce_subject": "%FF"}),
    ],
    ids=str,
)
async def test_a_body_that_is_no_cloudevent_is_refused(app: App, content: bytes, headers: dict[str, str]) -> None:
    answer = await post(app, content, **headers)

    assert (answer.status_code, answer.json()["error"]) == (400, "not-understood")
    assert await rows(app, "quarantine") == []


@pytest.mark.parametrize(
    ("more", "session", "left"),
    [
        ({"sessionid": "S1", "subject": "u1"}, "S1", {"subject": "u1"}),
        ({"sessionid": 7}, "7", {}),
        ({"subject": "u1"}, "u1", {}),
        ({"sessionid": "", "subject": "u1"}, "u1", {}),
        ({}, "", {}),
    ],
    ids=str,
)
async def test_a_session_is_an_extension_or_the_subject(
    app: App, more: dict[str, Any], session: str, left: dict[str, str]
) -> None:
    await post(app, event(**more))

    [row] = await rows(app)
    assert row["session_id"] == session
    assert row["properties"] == {"specversion": "1.0", "id": "1", "source": "/shop"} | left


async def test_an_event_without_a_time_gets_the_time_of_its_first_arrival(app: App) -> None:
    for _ in range(2):
        assert (await post(app, event(time=None))).status_code == 204

    [row] = await rows(app)
    assert row["timestamp"] == ""
    assert 0 <= row["received_at_us"] - row["timestamp_us"] < 1_000_000


@pytest.mark.parametrize(
    ("bad", "detail"),
    [
        ({"specversion": "0.3"}, 'specversion: must be "1.0"'),
        ({"specversion": None}, 'specversion: must be "1.0"'),
        ({"source": None}, "source: is missing"),
        ({"source": ""}, "source: must be a string that is not empty"),
        ({"id": 7}, "id: must be a string that is not empty"),
        ({"type": None}, "event_type: is missing"),
        ({"time": "today"}, "timestamp: must be an RFC 3339"),
        ({"sessionid": {"a": 1}}, "session_id: must be a string"),
        ({"data_base64": "no base64"}, "data_base64: is not base64"),
        ({"data_base64": 7}, "data_base64: is not base64"),
        ({"data": "\0"}, "holds a NUL character"),
    ],
    ids=str,
)
async def test_a_message_that_is_no_event_is_a_dead_letter(app: App, bad: dict[str, Any], detail: str) -> None:
    answer = await post(app, event(**bad))

    [held] = await rows(app, "quarantine")
    assert answer.status_code == 204
    assert held["detail"].startswith(detail)


async def test_bytes_stay_bytes(app: App) -> None:
    text = base64.b64encode(bytes(range(256))).decode()
    await post(app, event(data_base64=text))

    assert [row["properties"]["data_base64"] for row in await rows(app)] == [text]


def name(source: str, id: str) -> str:
    named = event_of(json.dumps(event(source=source, id=id)).encode(), OpenedRequest([], 0)).event_id
    assert named is not None and len(named.encode()) <= 256
    return named


parts = st.text(alphabet="a ü:/%1", min_size=1, max_size=6) | st.text(alphabet="aü ", min_size=120, max_size=300)


@given(parts, parts, st.integers(0, 300))
def test_different_events_have_different_event_ids(source: str, id: str, cut: int) -> None:
    joined = source + id
    other = joined[: cut % len(joined)], joined[cut % len(joined) :]

    if all(other) and other != (source, id):
        assert name(*other) != name(source, id)
    assert name(source, id) not in (name(f"{source} ", id), name(source, f" {id}"))
    assert name(source, id) == name(source, id)


def test_an_event_id_that_would_be_too_long_is_hashed() -> None:
    assert name("/shop", "x" * 250) == "/shop " + "x" * 250
    assert name("/shop", "x" * 251).startswith("sha256:")
    assert name("/a shop", "1").startswith("sha256:")
