"""PostHog's requests, in every wrapping, become events."""

import base64
import gzip
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.support.http import App, opened
from tests.support.servers import Server

OFFSET_MS = 90_000


@pytest.fixture
async def app(server: Server, tmp_path: Path) -> AsyncIterator[App]:
    async with opened(server, tmp_path) as app:
        yield app


def event(**more: Any) -> dict[str, Any]:
    """An event as a server SDK sends it."""
    given = {"event": "signed up", "distinct_id": "u1", "uuid": "i1", "timestamp": "2026-01-01T10:00:00+00:00", "properties": {}}
    return {name: value for name, value in (given | more).items() if value is not None}


def of_browser(**properties: Any) -> dict[str, Any]:
    """An event of posthog-js, with the time before its sending."""
    given = {"distinct_id": "d1", "token": "acme", "$device_id": "d1", "$session_id": "s1", "$is_identified": False}
    return {"event": "$pageview", "uuid": "i1", "properties": given | properties, "offset": OFFSET_MS}


async def sent(app: App, body: Any, path: str = "/batch/", **query: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await app.client.post(path, content=content, params=query or None)


async def rows(app: App, table: str = "events") -> list[dict[str, Any]]:
    await app.project()
    return list(app.store.tables().rows(table, "acme"))


async def properties_of(app: App, one: dict[str, Any]) -> Any:
    """The properties in the table after this event is sent."""
    assert (await sent(app, {"api_key": "acme", "batch": [one]})).status_code == 200
    [row] = await rows(app)
    return json.loads(row["properties"])


async def test_a_batch_becomes_events(app: App) -> None:
    one = event(properties={"plan": "pro", "$session_id": "s1"}, **{"$set": {"name": "Ada"}})
    answer = await sent(app, {"api_key": "acme", "sent_at": "2026-01-01T10:00:01Z", "batch": [one, event(uuid="i2")]})

    row, other = await rows(app)
    assert (answer.status_code, answer.content) == (200, b'{"status":1}')
    assert (row["event_type"], row["event_id"], row["session_id"]) == ("signed up", "i1", "s1")
    assert (other["event_id"], other["session_id"]) == ("i2", "")
    assert row["timestamp"] == "2026-01-01T10:00:00+00:00"
    assert 0 <= row["received_at_us"] - 1_000_000 - row["timestamp_us"] < 1_000_000  # sent a second after it happened
    assert json.loads(row["properties"]) == {
        "user_id": "u1",
        "properties": {"plan": "pro", "$session_id": "s1"},
        "$set": {"name": "Ada"},
    }


@pytest.mark.parametrize("path", ["/batch", "/batch/", "/e", "/e/", "/capture", "/capture/", "/i/v0/e", "/i/v0/e/"])
async def test_each_path_takes_each_shape(app: App, path: str) -> None:
    shapes: list[Any] = [
        {"api_key": "acme", "batch": [event(uuid="i1")]},
        [of_browser() | {"uuid": "i2"}],
        of_browser() | {"uuid": "i3"},
        event(uuid="i4") | {"api_key": "acme"},
        {"token": "acme", "batch": [event(uuid="i5")]},
    ]

    for shape in shapes:
        assert (await sent(app, shape, path)).content == b'{"status":1}'

    assert [row["event_id"] for row in await rows(app)] == ["i1", "i2", "i3", "i4", "i5"]
    assert all("token" not in row["properties"] and "api_key" not in row["properties"] for row in await rows(app))


def wrapped() -> dict[str, bytes]:
    """An event in each wrapping that is accepted."""
    plain = json.dumps([of_browser(title="n>?~~~é")]).encode()
    encoded = base64.b64encode(plain)
    assert b"+" in encoded
    return {
        "plain": b"\n " + plain,
        "gzip": gzip.compress(plain),
        "form": b"data=" + quote(encoded).encode(),
        "form, nothing escaped": b"data=" + encoded,
        "form, base64 for URLs, unpadded": b"data=" + base64.urlsafe_b64encode(plain).rstrip(b"="),
        "form, with more": b"compression=base64&data=" + quote(encoded).encode(),
        "form of JSON": b"data=" + quote(plain).encode(),
    }


@pytest.mark.parametrize("kind", wrapped())
async def test_a_body_is_read_by_its_content_and_not_by_its_type(app: App, kind: str) -> None:
    answer = await sent(app, wrapped()[kind], "/e/", compression="whatever", ip="1", ver="1.2.3")

    [row] = await rows(app)
    assert answer.status_code == 200
    assert json.loads(row["properties"])["properties"]["title"] == "n>?~~~é"


@pytest.mark.parametrize(
    "body", [b"", b"data=", b"data=%", b"\xff", b"data=e30=&" + b"a=b&" * 200, b'{"batch": 7}', b"[", b"[" * 5000]
)
async def test_an_unreadable_request_is_refused_finally(app: App, body: bytes) -> None:
    answer = await app.client.post("/e/", content=body, headers={"X-Tenant-ID": "acme"})

    assert (answer.status_code, answer.json()["error"]) == (400, "not-understood")


async def test_a_bad_event_is_a_dead_letter_and_the_key_of_the_next_is_found(app: App) -> None:
    bad: list[Any] = [7, {"properties": 7}, of_browser() | {"event": None, "uuid": "i2"}]
    answers = [await sent(app, [*bad, of_browser()], "/e/") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert [row["event_id"] for row in await rows(app)] == ["i1"]
    assert [row["detail"] for row in await rows(app, "quarantine")] == [
        "must be a JSON object",
        "properties: must be a JSON object",
        "event_type: is missing",
    ]


async def test_a_bad_event_that_is_sent_again_is_one_dead_letter(app: App) -> None:
    for sent_at in ("2026-01-01T10:00:01Z", "2026-01-01T10:00:02Z"):
        await sent(app, event(event=None) | {"api_key": "acme", "sent_at": sent_at}, "/capture/")

    assert len(await rows(app, "quarantine")) == 1


# -- times -------------------------------------------------------------------------------------------------------------


async def test_a_browsers_event_happened_its_offset_before_its_arrival(app: App) -> None:
    answers = [await sent(app, [of_browser()], "/e/") for _ in range(2)]  # a resend has the same offset

    [row] = await rows(app)
    assert [answer.status_code for answer in answers] == [200, 200]
    assert row["timestamp"] == ""
    assert 0 <= row["received_at_us"] - OFFSET_MS * 1_000 - row["timestamp_us"] < 1_000_000
    assert await rows(app, "quarantine") == []


async def test_a_clock_is_corrected_by_the_time_of_sending_in_the_query(app: App) -> None:
    behind = int(time.time() * 1_000) - 3_600_000
    await sent(app, [event(properties={"token": "acme"})], "/e/", _=behind)

    [row] = await rows(app)
    corrected_by = row["timestamp_us"] - 1_767_261_600_000_000
    assert abs(corrected_by - 3_600_000_000) < 5_000_000


async def test_a_clock_that_the_event_calls_right_is_not_corrected(app: App) -> None:
    one = event(properties={"$ignore_sent_at": True})
    await sent(app, {"api_key": "acme", "sent_at": "2020-01-01T00:00:00Z", "batch": [one]})

    assert [row["timestamp_us"] for row in await rows(app)] == [1_767_261_600_000_000]


async def test_an_event_without_an_id_is_identified_by_its_content(app: App) -> None:
    one = event(uuid=None)
    others = [event(uuid=None, distinct_id="u2"), event(uuid=None, event="left"), event(uuid=None, properties={"a": 1})]
    for sent_at in ("2026-01-01T10:00:01Z", "2026-01-01T10:00:02Z"):
        await sent(app, {"api_key": "acme", "sent_at": sent_at, "batch": [one, *others]})

    assert len({row["event_id"] for row in await rows(app)}) == len(await rows(app)) == 4


# -- actors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent_properties", "actor"),
    [
        ({}, {"user_id": "u1"}),
        ({"$is_identified": True, "$device_id": "d1"}, {"user_id": "u1"}),
        ({"$is_identified": False}, {"anonymous_id": "u1"}),
        ({"$process_person_profile": False}, {"anonymous_id": "u1"}),
        ({"$device_id": "u1"}, {"anonymous_id": "u1"}),
    ],
    ids=str,
)
async def test_an_identified_actor_is_a_user(app: App, sent_properties: dict[str, Any], actor: dict[str, str]) -> None:
    properties = await properties_of(app, event(properties=sent_properties))

    assert properties == {"properties": sent_properties, **actor}


@pytest.mark.parametrize("distinct_id", ["", "$posthog_cookieless", None], ids=str)
async def test_an_event_without_an_actor_has_no_ids(app: App, distinct_id: Any) -> None:
    assert await properties_of(app, event(distinct_id=distinct_id)) == {"properties": {}}


async def test_a_group_is_not_an_actor(app: App) -> None:
    sent_properties = {"$group_type": "company", "$group_key": "c1", "$group_set": {}}

    assert await properties_of(app, event(event="$groupidentify", distinct_id="$company_c1", properties=sent_properties)) == {
        "properties": sent_properties
    }


async def test_an_id_may_be_a_number(app: App) -> None:
    assert await properties_of(app, event(distinct_id=7)) == {"user_id": "7", "properties": {}}


@pytest.mark.parametrize(
    ("name", "sent_properties", "linked"),
    [
        ("$identify", {"$anon_distinct_id": "d1", "$is_identified": False}, {"anonymous_id": "d1"}),
        ("$identify", {}, {}),
        ("$create_alias", {"alias": "old"}, {"previous_id": "old"}),
        ("$merge_dangerously", {"alias": "old"}, {"previous_id": "old"}),
        ("$create_alias", {"alias": "u1"}, {}),
    ],
)
async def test_linking_events_have_both_ids(app: App, name: str, sent_properties: dict[str, Any], linked: dict[str, str]) -> None:
    properties = await properties_of(app, event(event=name, properties=sent_properties))

    assert properties == {"user_id": "u1", "properties": sent_properties, **linked}


# -- refusals ----------------------------------------------------------------------------------------------------------


async def test_a_limited_request_is_answered_so_that_browsers_send_it_again(server: Server, tmp_path: Path) -> None:
    async with opened(server, tmp_path, EVENTS_PER_SECOND=1) as app:
        answer = await sent(app, {"api_key": "acme", "batch": [event(), event(uuid="i2")]})

    assert (answer.status_code, answer.json()["error"]) == (503, "limited")
    assert int(answer.headers["retry-after"]) >= 1
