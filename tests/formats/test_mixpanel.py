"""Mixpanel's messages, in every wrapping, become events."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.auth.credentials import KEY_ID_LENGTH, hash_of, new_key
from api.formats import OpenedRequest, Unreadable
from api.formats.forms import fields_of, messages_in
from api.formats.mixpanel import EVENTS, PROFILES
from projector import ApiKey
from projector.store.sqlite import SqliteStore
from streams import Event, Rejected, keys_of
from tests.support.http import App, opened
from tests.support.servers import Server


@pytest.fixture
async def app(server: Server, tmp_path: Path) -> AsyncIterator[App]:
    async with opened(server, tmp_path) as app:
        yield app


def message(**properties: Any) -> dict[str, Any]:
    """A message as the Python SDK sends it, without properties that are None."""
    given = {"token": "acme", "distinct_id": "u1", "time": 1767261600.25, "$insert_id": "i1", "mp_lib": "python"} | properties
    return {"event": "Signed Up", "properties": {name: value for name, value in given.items() if value is not None}}


def event(**properties: Any) -> Event:
    return EVENTS.event_of(json.dumps(message(**properties)).encode(), OpenedRequest([], 1))


def event_named(event_type: str, **properties: Any) -> Event:
    return EVENTS.event_of(json.dumps({"event": event_type, "properties": properties}).encode(), OpenedRequest([], 1))


def profile(**members: Any) -> Event:
    given = {"$token": "acme", "$distinct_id": "u1", "$time": 1767261600} | members
    return PROFILES.event_of(json.dumps(given).encode(), OpenedRequest([], 1_767_261_600_000_000))


def properties_of(event: Event) -> dict[str, Any]:
    return dict(json.loads(event.properties))


def rows(app: App) -> list[dict[str, Any]]:
    return list(app.store.tables().rows("events", "acme"))


def packed(value: Any) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


# -- wrappings ---------------------------------------------------------------------------------------------------------

PLUS = message(note="\u00fb\u00ff\u00bf\u03fe>>>???~~~")  # its base64 has + and / in it
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
TEXT = json.dumps(PLUS)
WRAPPINGS: dict[str, dict[str, Any]] = {
    "form, JSON": {"content": urlencode({"data": TEXT, "verbose": 1, "ip": 0}), "headers": FORM},
    "form, list": {"content": urlencode({"data": f"[{TEXT}]"}), "headers": FORM},
    "form, base64": {"content": urlencode({"data": packed(PLUS)})},
    "form, base64 as Node sends it": {"content": f"data={packed(PLUS)}", "headers": FORM},
    "form, base64 for URLs, unpadded": {"content": f"data={packed(PLUS).translate(str.maketrans('+/', '-_')).rstrip('=')}"},
    "query": {"method": "GET", "url": f"/track?data={quote(packed(PLUS))}&ip=1"},
    "query, plus unescaped": {"method": "GET", "url": f"/track/?data={packed(PLUS)}"},
    "JSON": {"content": TEXT, "headers": {"Content-Type": "text/plain"}},
    "JSON, spread over lines": {"content": json.dumps(PLUS, indent=1)},
    "JSON list": {"url": "/track/", "content": f" [{TEXT}]"},
}


def test_the_example_has_what_makes_base64_hard() -> None:
    assert "+" in packed(PLUS) and "/" in packed(PLUS)


@pytest.mark.parametrize("wrapping", WRAPPINGS)
async def test_a_message_is_found_in_every_wrapping(app: App, wrapping: str) -> None:
    answer = await app.client.request(**{"method": "POST", "url": "/track"} | WRAPPINGS[wrapping])
    await app.project()

    [row] = rows(app)
    assert answer.status_code == 200
    assert (row["event_type"], row["event_id"], row["session_id"]) == ("Signed Up", "i1", "")
    assert json.loads(row["properties"]) == {
        "user_id": "u1",
        "properties": {"mp_lib": "python", "note": PLUS["properties"]["note"]},
    }


@pytest.mark.parametrize(
    ("request_", "body", "media_type"),
    [
        ({"content": "data=" + quote(TEXT)}, b"1", "text/plain"),
        ({"content": "verbose=1&data=" + quote(TEXT)}, b'{"status":1,"error":null}', "application/json"),
        ({"url": "/track?verbose=1", "content": TEXT}, b'{"status":1,"error":null}', "application/json"),
        ({"url": "/track?verbose=0", "content": TEXT}, b"1", "text/plain"),
        (
            {"url": "/import?strict=1", "content": f"[{TEXT}]"},
            b'{"code":200,"num_records_imported":1,"status":"OK"}',
            "application/json",
        ),
        ({"url": "/import", "content": "verbose=1&data=" + quote(TEXT)}, b'{"status":1,"error":null}', "application/json"),
    ],
    ids=str,
)
async def test_the_answer_is_the_one_that_the_sdk_expects(
    app: App, request_: dict[str, Any], body: bytes, media_type: str
) -> None:
    answer = await app.client.request(**{"method": "POST", "url": "/track"} | request_)

    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, body, media_type)


async def test_an_import_may_be_lines_and_use_a_secret(app: App) -> None:
    lines = "\n".join(json.dumps(message(token=None, **{"$insert_id": name})) for name in ("i1", "i2"))
    answer = await app.client.post("/import?strict=1", content=lines + "\n{\n", auth=("acme", ""))
    await app.project()

    assert answer.json() == {"code": 200, "num_records_imported": 3, "status": "OK"}
    assert [row["event_id"] for row in rows(app)] == ["i1", "i2"]
    assert len(list(app.store.tables().rows("quarantine", "acme"))) == 1


@pytest.mark.parametrize("body", ["", "data=", "data=%7B", "data=!", "data=%ff", "[1", "&".join("abcdefgh" * 100)], ids=str)
async def test_a_request_without_messages_is_refused_with_the_reason(app: App, body: str) -> None:
    answer = await app.client.post("/track", content=body, headers={"X-Tenant-ID": "acme"})
    await app.project()

    make = body == "data=%7B"  # it is a message, although a bad one
    assert answer.status_code == (200 if make else 400)
    assert make or answer.json()["error"] == "not-understood"
    assert make or answer.json()["status"] == 0


async def test_a_batch_may_have_only_one_token(app: App) -> None:
    async def sent(*messages: dict[str, Any]) -> httpx.Response:
        return await app.client.post("/track", content=json.dumps(messages))

    mixed = await sent(message(), message(token="other"))
    one = await sent(message(token=None), message(**{"$insert_id": "i2"}))

    assert (mixed.status_code, mixed.json()["error"]) == (400, "not-understood")
    assert one.status_code == 200
    assert [(summary.tenant, summary.last) for summary in await app.log.summaries()] == [("acme", 2)]


async def test_a_limited_request_is_answered_as_the_sdks_understand(server: Server, tmp_path: Path) -> None:
    async with opened(server, tmp_path, EVENTS_PER_SECOND=1) as app:
        answer = await app.client.post("/track", content=json.dumps([message(), message(**{"$insert_id": "i2"})]))

    assert (answer.status_code, answer.json()["error"], answer.json()["status"]) == (503, "limited", 0)
    assert int(answer.headers["retry-after"]) >= 1


def test_lines_are_messages_only_if_the_whole_body_is_none() -> None:
    assert messages_in(b'{"a":\n1}') == [b'{"a":\n1}']
    assert messages_in(b'{"a":1}\r\n\n{"b":2}\n') == [b'{"a":1}', b'{"b":2}']
    with pytest.raises(Unreadable):
        messages_in(b"{\n" * 20_000)


# -- times and ids -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time", "timestamp"),
    [
        (1767261600, "2026-01-01T10:00:00Z"),
        (1767261600.123456, "2026-01-01T10:00:00.123456Z"),
        (1767261600000, "2026-01-01T10:00:00Z"),
        (1767261600123, "2026-01-01T10:00:00.123000Z"),
        (1767261600123.5, "2026-01-01T10:00:00.123500Z"),
        ("1767261600", "2026-01-01T10:00:00Z"),
        ("2026-01-01T10:00:00+01:00", "2026-01-01T10:00:00+01:00"),
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59Z"),
    ],
    ids=str,
)
def test_a_time_is_seconds_or_milliseconds(time: Any, timestamp: str) -> None:
    assert event(time=time).timestamp == timestamp


@pytest.mark.parametrize("time", [10**30, -(10**400), 1e300, "yesterday", True, {}, []], ids=lambda time: str(time)[:20])
def test_an_invalid_time_is_rejected(time: Any) -> None:
    with pytest.raises(Rejected, match="timestamp"):
        event(time=time)


@pytest.mark.parametrize(("name", "event_id"), [("i1", "i1"), (7, "7")], ids=str)
def test_the_insert_id_is_the_event_id(name: Any, event_id: str) -> None:
    assert event(**{"$insert_id": name}).event_id == event_id


def test_without_an_insert_id_content_and_actor_make_the_event_id() -> None:
    one = event(**{"$insert_id": None})

    assert (one.event_id or "").startswith("content:")
    assert event(**{"$insert_id": None}).event_id == one.event_id
    others = [event(**{"$insert_id": None} | other).event_id for other in ({"distinct_id": "u2"}, {"time": 1}, {"a": 1})]
    named = message(**{"$insert_id": None}) | {"event": "Other"}
    assert len({one.event_id, *others, EVENTS.event_of(json.dumps(named).encode(), OpenedRequest([], 1)).event_id}) == 5


@pytest.mark.parametrize("raw", ["7", "[]", "{}", '{"event": 7}', '{"event": ""}', '{"event": "x", "properties": 7}'])
def test_a_message_that_is_no_event_is_rejected(raw: str) -> None:
    with pytest.raises(Rejected):
        EVENTS.event_of(raw.encode(), OpenedRequest([], 1))


# -- actors ------------------------------------------------------------------------------------------------------------

PERSONS: dict[str, tuple[Event, dict[str, Any]]] = {
    "a user": (event_named("x", distinct_id="u1"), {"user_id": "u1"}),
    "a number": (event_named("x", distinct_id=7), {"user_id": "7"}),
    "a device": (event_named("x", distinct_id="$device:d1"), {"anonymous_id": "d1"}),
    "a device, twice": (event_named("x", distinct_id="$device:d1", **{"$device_id": "d1"}), {"anonymous_id": "d1"}),
    "a device of old": (event_named("x", distinct_id="d1", **{"$device_id": "d1"}), {"anonymous_id": "d1"}),
    "both": (
        event_named("x", distinct_id="u1", **{"$device_id": "d1", "$user_id": "u1"}),
        {"user_id": "u1", "anonymous_id": "d1"},
    ),
    "a third": (
        event_named("x", distinct_id="c1", **{"$device_id": "d1", "$user_id": "u1"}),
        {"user_id": "u1", "anonymous_id": "d1", "properties": {"distinct_id": "c1"}},
    ),
    "nobody": (event_named("x", distinct_id="", **{"$user_id": None}), {}),
    "identified in a browser": (
        event_named("$identify", distinct_id="u1", **{"$anon_distinct_id": "$device:d1", "$user_id": "u1"}),
        {"user_id": "u1", "anonymous_id": "d1"},
    ),
    "identified by a server": (
        event_named("$identify", **{"$identified_id": "u1", "$anon_id": "d1"}),
        {"user_id": "u1", "previous_id": "d1"},
    ),
    "an alias of a device": (
        event_named("$create_alias", distinct_id="$device:d1", alias="u1"),
        {"user_id": "u1", "anonymous_id": "d1"},
    ),
    "an alias": (event_named("$create_alias", distinct_id="d1", alias="u1"), {"user_id": "u1", "previous_id": "d1"}),
    "merged": (event_named("$merge", **{"$distinct_ids": ["u1", "u2"]}), {"user_id": "u1", "previous_id": "u2"}),
    "three merged": (
        event_named("$merge", **{"$distinct_ids": ["a", "b", "c"]}),
        {"properties": {"$distinct_ids": ["a", "b", "c"]}},
    ),
}


@pytest.mark.parametrize("case", PERSONS)
def test_ids_get_the_names_that_penstock_uses(case: str) -> None:
    event, expected = PERSONS[case]

    assert properties_of(event) == {"properties": {}} | expected


@pytest.mark.parametrize("operation", ["$set", "$set_once", "$add", "$append", "$union", "$remove", "$unset", "$delete"])
def test_a_profile_is_an_event_of_its_operation(operation: str) -> None:
    parsed = profile(**{operation: {"plan": "pro"}, "$ip": "0"})

    assert (parsed.event_type, parsed.timestamp) == (operation, "2026-01-01T10:00:00Z")
    assert properties_of(parsed) == {operation: {"plan": "pro"}, "$ip": "0", "user_id": "u1"}
    assert parsed.event_id == profile(**{operation: {"plan": "pro"}, "$ip": "0"}).event_id
    assert parsed.event_id != profile(**{operation: {"plan": "pro"}, "$ip": "0", "$time": 1767261601}).event_id


def test_a_browsers_profile_names_its_device() -> None:
    ids = {"$distinct_id": "$device:d1", "$device_id": "d1", "$user_id": "u1"}

    assert properties_of(profile(**{"$set": {}} | ids)) == {"$set": {}, "user_id": "u1", "anonymous_id": "d1"}


def test_a_profile_without_an_operation_is_rejected() -> None:
    with pytest.raises(Rejected):
        profile(plan="pro")


async def test_profiles_of_users_and_groups_are_accepted(app: App) -> None:
    group = {"$token": "acme", "$time": 1, "$group_key": "company", "$group_id": "c1", "$set": {"plan": "pro"}}
    user = {"$token": "acme", "$time": 1, "$distinct_id": "u1", "$add": {"logins": 1}}

    answers = [
        await app.client.post("/engage/", data={"data": json.dumps([user]), "verbose": "1"}),
        await app.client.get(f"/groups?data={packed(group)}"),
    ]
    await app.project()

    assert [answer.text for answer in answers] == ['{"status":1,"error":null}', "1"]
    assert [(row["event_type"], json.loads(row["properties"])) for row in rows(app)] == [
        ("$add", {"user_id": "u1", "$add": {"logins": 1}}),
        ("$set", {"$group_key": "company", "$group_id": "c1", "$set": {"plan": "pro"}}),
    ]


async def test_a_token_is_stored_nowhere(server: Server, tmp_path: Path) -> None:
    key = new_key("write")
    with SqliteStore(str(tmp_path / "penstock.db"), cache_mib=8) as store:
        store.api_keys.add(ApiKey("acme", key[:KEY_ID_LENGTH], hash_of(key), "write", "", 1))
    async with opened(server, tmp_path, AUTH="keys") as app:
        good, bad = message(token=key), {"event": 7, "properties": {"token": key}}
        answer = await app.client.post("/track", content=json.dumps([good, bad]))
        await app.project()

        kept = json.dumps([*app.store.tables().rows("quarantine", "acme"), *rows(app)], default=str)
        logged = str(server.client.xrange(keys_of("acme").log))

    assert answer.status_code == 200
    assert "***" in kept and key not in kept
    assert "***" in logged and key not in logged


@given(st.text('%0257bBdDcCaA"{}[]:, +&=x', max_size=40))
def test_a_form_is_read_like_the_standard_library_reads_it(form: str) -> None:
    try:
        expected = dict(parse_qsl(form, errors="strict"))
    except ValueError:
        with pytest.raises(Unreadable):
            fields_of(form.encode())
    else:
        assert fields_of(form.encode()) == expected


@given(st.text(max_size=40))
def test_a_form_gives_back_the_fields_that_were_encoded(text: str) -> None:
    assert fields_of(urlencode({"data": text, "verbose": "1"}).encode()) == ({"data": text} if text else {}) | {"verbose": "1"}
