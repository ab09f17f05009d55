"""Snowplow's events are decoded, and keys in paths are never logged."""

import base64
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from api.formats import OpenedRequest
from api.formats.snowplow import BATCH, PIXEL
from api.http.access_log import masked_path
from api.http.request_ids import RequestIds
from streams import Event, Rejected
from tests.support.http import App, opened, wait_until
from tests.support.sdks import Stack
from tests.support.servers import Server

TP2 = "/com.snowplowanalytics.snowplow/tp2"
PAYLOAD = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
UNSTRUCT = "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0"
CONTEXTS = "iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-1"
CLICK = {"schema": "iglu:com.snowplowanalytics.snowplow/link_click/jsonschema/1-0-1", "data": {"targetUrl": "/?>~ü"}}
MOBILE = {
    "schema": "iglu:com.snowplowanalytics.snowplow/client_session/jsonschema/1-0-2",
    "data": {"userId": "m1", "sessionId": "ms1", "sessionIndex": 3},
}
TEN = 1_767_261_600_000  # 2026-01-01T10:00:00Z in milliseconds
RECEIVED_US = (TEN + 60_000) * 1_000


@pytest.fixture
async def app(server: Server, tmp_path: Path) -> AsyncIterator[App]:
    async with opened(server, tmp_path, CORS_ORIGINS="*") as app:
        yield app


def message(**more: Any) -> dict[str, Any]:
    """A page view, without fields that are None."""
    given = {"e": "pv", "eid": "e1", "aid": "acme", "p": "web", "url": "https://shop.example/", "dtm": str(TEN)}
    return {name: value for name, value in (given | more).items() if value is not None}


def event(**more: Any) -> Event:
    return BATCH.event_of(json.dumps(message(**more)).encode(), OpenedRequest([], RECEIVED_US))


def properties_of(event: Event) -> dict[str, Any]:
    return dict(json.loads(event.properties))


def packed(schema: str, data: Any, *, padded: bool = True) -> str:
    text = base64.urlsafe_b64encode(json.dumps({"schema": schema, "data": data}).encode()).decode()
    return text if padded else text.rstrip("=")


async def sent(app: App, *messages: Any, path: str = TP2, **request: Any) -> httpx.Response:
    return await app.client.post(path, content=json.dumps({"schema": PAYLOAD, "data": messages}), **request)


def rows(app: App, tenant: str = "acme", table: str = "events") -> list[dict[str, Any]]:
    return list(app.store.tables().rows(table, tenant))


# -- the ingest endpoint -----------------------------------------------------------------------------------------------


async def test_a_batch_is_accepted_and_answered_as_by_a_collector(app: App) -> None:
    answer = await sent(app, message(), message(eid="e2", e="pp"), path=TP2 + "/")
    await app.project()

    assert (answer.status_code, answer.text) == (200, "ok")
    assert [(row["event_id"], row["event_type"]) for row in rows(app)] == [("e1", "page_view"), ("e2", "page_ping")]


async def test_a_pixel_is_an_event(app: App) -> None:
    answer = await app.client.get("/i?" + urlencode(message(page="Tea & cake")))
    await app.project()

    [row] = rows(app)
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, PIXEL, "image/gif")
    assert (row["event_id"], json.loads(row["properties"])["page"]) == ("e1", "Tea & cake")


@pytest.mark.parametrize("path", ["/acme" + TP2, "/acme/i"])
async def test_a_key_before_the_path_names_the_tenant(app: App, path: str) -> None:
    given = message(aid="the-shop")
    answer = await (app.client.get(path, params=given) if path.endswith("/i") else sent(app, given, path=path))
    await app.project()

    [row] = rows(app)
    assert answer.status_code == 200
    assert json.loads(row["properties"])["aid"] == "the-shop"


async def test_events_of_several_applications_need_a_tenant(app: App) -> None:
    several = message(), message(eid="e2", aid="other")

    assert (await sent(app, *several)).json()["error"] == "tenant-missing"
    assert (await sent(app, *several, headers={"X-Tenant-ID": "acme"})).status_code == 200
    assert [(summary.tenant, summary.last) for summary in await app.log.summaries()] == [("acme", 2)]


async def test_an_application_id_is_no_credential_where_keys_are_needed(server: Server, tmp_path: Path) -> None:
    async with opened(server, tmp_path, AUTH="keys") as app:
        answers = [await sent(app, message()), await sent(app, message(), path="/acme" + TP2)]

    assert [(answer.status_code, answer.json()["error"]) for answer in answers] == [
        (401, "credential-missing"),
        (401, "credential-unknown"),
    ]


async def test_a_resend_is_a_duplicate_although_its_time_of_sending_differs(app: App) -> None:
    for stm in (TEN, TEN + 90_000):
        given = message(), message(eid=None), message(eid="bad", e=None), message(url="/other")
        await sent(app, *(one | {"stm": str(stm)} for one in given))
    await app.project()

    assert [(row["event_id"] or "")[:8] for row in rows(app)] == ["e1", "content:"]
    assert [row["reason"] for row in rows(app, table="quarantine")] == ["invalid", "conflict"]


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"data": 7}', b'{"data": [1'], ids=str)
async def test_a_body_that_is_no_payload_is_refused_with_the_reason(app: App, body: bytes) -> None:
    answer = await app.client.post(TP2, content=body, headers={"X-Tenant-ID": "acme"})

    assert (answer.status_code, answer.json()["error"]) == (400, "not-understood")


@pytest.mark.parametrize("path", [TP2, "/acme" + TP2])
async def test_a_page_of_any_allowed_origin_may_send_with_credentials(app: App, path: str) -> None:
    origin = {"Origin": "https://shop.example"}
    asks = origin | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type, sp-anonymous"}

    for answer in (await app.client.options(path, headers=asks), await sent(app, message(), path=path, headers=origin)):
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
        assert answer.headers["access-control-allow-credentials"] == "true"


# -- content -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "event_type"),
    [("pv", "page_view"), ("pp", "page_ping"), ("se", "struct"), ("tr", "transaction"), ("ti", "transaction_item"), ("zz", "zz")],
)
def test_an_event_type_is_named_as_in_snowplows_tables(kind: str, event_type: str) -> None:
    assert event(e=kind).event_type == event_type


@pytest.mark.parametrize(
    "sent",
    [
        {"ue_pr": json.dumps({"schema": UNSTRUCT, "data": CLICK})},
        {"ue_px": packed(UNSTRUCT, CLICK)},
        {"ue_px": packed(UNSTRUCT, CLICK, padded=False)},
    ],
    ids=str,
)
def test_a_self_describing_event_is_named_by_its_schema(sent: dict[str, str]) -> None:
    parsed = event(e="ue", **sent)

    assert parsed.event_type == "link_click"
    assert properties_of(parsed) == {"aid": "acme", "p": "web", "url": "https://shop.example/", "unstruct_event": CLICK}


@pytest.mark.parametrize(
    "sent", [{"co": json.dumps({"schema": CONTEXTS, "data": [CLICK]})}, {"cx": packed(CONTEXTS, [CLICK])}], ids=str
)
def test_contexts_are_decoded(sent: dict[str, str]) -> None:
    assert properties_of(event(**sent))["contexts"] == [CLICK]


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"e": None}, "event_type"),
        ({"e": 7}, "event_type"),
        ({"e": "ue"}, "ue_pr"),
        ({"e": "ue", "ue_pr": "{"}, "ue_pr"),
        ({"e": "ue", "ue_pr": "{}"}, "ue_pr"),
        ({"e": "ue", "ue_pr": json.dumps({"schema": UNSTRUCT, "data": {"schema": "link_click", "data": {}}})}, "ue_pr"),
        ({"e": "ue", "ue_px": "e"}, "ue_px"),
        ({"e": "ue", "ue_px": 7}, "ue_px"),
        ({"cx": "ü"}, "cx"),
        ({"co": "[]"}, "co"),
        ({"dtm": "yesterday"}, "dtm"),
        ({"ttm": "9" * 30}, "timestamp"),
        ({"eid": "x" * 300}, "event_id"),
    ],
    ids=str,
)
def test_an_unreadable_event_is_rejected(sent: dict[str, Any], field: str) -> None:
    with pytest.raises(Rejected) as raised:
        event(**sent)

    assert raised.value.field == field


@pytest.mark.parametrize(
    ("sent", "timestamp", "clock_us"),
    [
        ({}, "2026-01-01T10:00:00Z", 0),
        ({"stm": str(TEN + 59_000)}, "2026-01-01T10:00:00Z", 1_000_000),
        ({"stm": "soon"}, "2026-01-01T10:00:00Z", 0),
        ({"stm": "0"}, "2026-01-01T10:00:00Z", 0),
        ({"ttm": str(TEN + 1), "stm": str(TEN)}, "2026-01-01T10:00:00.001000Z", 0),
        ({"dtm": None, "stm": str(TEN)}, "", RECEIVED_US),
    ],
    ids=str,
)
def test_a_devices_clock_is_corrected_and_a_true_timestamp_is_not(sent: dict[str, Any], timestamp: str, clock_us: int) -> None:
    parsed = event(**sent)

    assert (parsed.timestamp, parsed.clock_us) == (timestamp, clock_us)
    assert not {"stm", "dtm", "ttm"} & set(properties_of(parsed))


@pytest.mark.parametrize(
    ("sent", "session", "ids"),
    [
        ({}, "", {}),
        ({"sid": "s1", "vid": "2", "duid": "d1", "uid": "u1"}, "s1", {"user_id": "u1", "anonymous_id": "d1", "vid": "2"}),
        ({"vid": "2", "duid": "d1"}, "d1.2", {"anonymous_id": "d1", "vid": "2"}),
        ({"vid": "2", "nuid": "n1"}, "", {"anonymous_id": "n1", "vid": "2"}),
        ({"duid": "d1", "nuid": "n1"}, "", {"anonymous_id": "d1", "nuid": "n1"}),
        ({"cx": packed(CONTEXTS, [CLICK, MOBILE])}, "ms1", {"anonymous_id": "m1", "contexts": [CLICK, MOBILE]}),
        ({"cx": packed(CONTEXTS, [MOBILE]), "sid": "s1", "duid": "d1"}, "s1", {"anonymous_id": "d1", "contexts": [MOBILE]}),
    ],
    ids=str,
)
def test_sessions_and_visitors_get_the_names_that_penstock_uses(sent: dict[str, Any], session: str, ids: dict[str, Any]) -> None:
    parsed = event(**sent)

    assert parsed.session_id == session
    assert properties_of(parsed) == {"aid": "acme", "p": "web", "url": "https://shop.example/"} | ids


# -- a key in a path ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "key", "logged"),
    [
        (b"/secret/i", "secret", "/***/i"),
        (b"/se%63ret" + TP2.encode(), "secret", "/***" + TP2),
        (b"/ps_w_abc/com.snowplow/tp1", None, "/***/com.snowplow/tp1"),
        (b"/%70s_w_abc", None, "/***"),
        (b"/eyJhbGci.eyJ0ZW5h.c2ln/i/v0", None, "/***/i/v0"),
        (b"/api/sessions/S1/", None, "/api/sessions/S1/"),
        (b"//caf%C3%A9%0A", None, "//caf%C3%A9%0A"),
    ],
)
def test_a_path_is_logged_without_its_key(path: bytes, key: str | None, logged: str) -> None:
    assert masked_path(path, key) == logged


async def test_every_path_parameter_that_is_a_key_is_masked_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def refuses(scope: Scope, receive: Receive, send: Send) -> None:
        scope["path_params"] = {"key": "of-another-server"}
        await send({"type": "http.response.start", "status": 401})
        await send({"type": "http.response.body"})

    async def drop(message: Any) -> None:
        pass

    scope: Scope = {"type": "http", "method": "GET", "raw_path": b"/of-another-server/i", "headers": [], "client": None}
    with caplog.at_level(logging.INFO):
        await RequestIds(refuses, access_log=True)(scope, drop, drop)  # type: ignore[arg-type]

    assert [record.path for record in caplog.records] == ["/***/i"]  # type: ignore[attr-defined]


def test_a_key_in_a_path_is_in_no_log_line(stack: Stack) -> None:
    body = json.dumps({"schema": PAYLOAD, "data": [message()]})
    taken = httpx.post(f"{stack.api.url}/{stack.key}{TP2}", content=body)
    stack.server.kill()
    failed = [httpx.post(f"{stack.api.url}/{stack.key}{TP2}", content=body), httpx.get(f"{stack.api.url}/{stack.key}/i?e=pv")]
    lines = wait_until(lambda: len(found := stack.api.logged) >= 2 and found, "they are logged")

    assert [answer.status_code for answer in (taken, *failed)] == [200, 503, 503]
    assert {line["path"] for line in lines if "path" in line} == {f"/***{TP2}", "/***/i"}
    assert stack.key not in stack.api.said
