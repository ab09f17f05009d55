"""The native ingest endpoint gives each event its receipt.

It accepts valid events beside invalid ones, and nothing that a table cannot hold.
"""

import asyncio
import base64
import gzip
import hashlib
import itertools
import json
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect

from api.http.body import BodyBudget, BodyReservation, headers_by_name, read_body
from api.ingest.parsing import parse_all, parse_message
from streams import Rejected
from tests.support.events import body
from tests.support.http import App, opened
from tests.support.json_values import UNHOLDABLE, array, deep, event_with, lines, wrapped
from tests.support.servers import Server

pytestmark = pytest.mark.anyio

ONE_MIB = 1024 * 1024
NDJSON = {"Content-Type": "application/x-ndjson"}
GZIP = {"Content-Encoding": "gzip"}
CONTRACT = (
    b'{"payload": "eyJzZXNzaW9uX2lkIjoiUzEyMyIsImV2ZW50X3R5cGUiOiJwYWdlX3ZpZXciLCJ0aW1lc3RhbXAiOiIyMDI2LTAxLTAxVDEwOjAwOjAwWiJ9"}'
)
new_tenants = (f"tenant-{i}" for i in itertools.count())


@pytest.fixture
async def app(server: Server, tmp_path: Path) -> AsyncIterator[App]:
    async with opened(server, tmp_path) as app:
        yield app


def member(**members: Any) -> dict[str, Any]:
    """An event as a value."""
    value: dict[str, Any] = json.loads(body(**members))
    return value


def statuses(answer: Any) -> list[str]:
    """The statuses of a batch's receipts."""
    return [receipt["status"] for receipt in answer.json()["receipts"]]


def assert_problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    """The answer is a problem of that status and code; its members."""
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem.get("code")) == (status, code), problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == status
    assert problem["type"].endswith(code)
    assert problem["detail"]
    return problem


async def test_a_body_whose_sender_disconnects_is_not_used() -> None:
    messages = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    with pytest.raises(ClientDisconnect):
        await read_body(receive, {}, 100, BodyReservation(BodyBudget(100)))


# -- bodies ------------------------------------------------------------------------------------------------------------


async def test_the_original_contract_is_accepted_with_its_original_hash(app: App) -> None:
    answer = await app.post(CONTRACT)

    name = hashlib.md5(b"acmeS123page_view2026-01-01T10:00:00Z").hexdigest()
    assert answer.status_code == 202
    assert answer.json() == {"status": "accepted", "event_hash": name, "position": 1}


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("padding", [b"", b"="])
async def test_a_payload_may_be_standard_or_url_safe_padded_or_not(
    app: App, encode: Callable[[bytes], bytes], padding: bytes
) -> None:
    raws = [body(letters="ÿ>?~" * 3 + "x" * length) for length in range(3)]
    texts = [encode(raw) if padding else encode(raw).rstrip(b"=") for raw in raws]
    assert any(set(text) & set(b"+/-_") for text in texts)

    answers = [
        await app.post({"payload": text.decode()}, tenant=tenant) for text, tenant in zip(texts, new_tenants, strict=False)
    ]

    assert [answer.status_code for answer in answers] == [202] * 3


async def test_a_payload_and_its_plain_object_are_one_event(app: App) -> None:
    raw = body(color="red", n=1)

    first, second = await app.post(raw), await app.post(wrapped(raw))

    assert (first.status_code, second.status_code) == (202, 200)
    assert second.json() == {**first.json(), "status": "duplicate"}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("shape", ["array", "ndjson"])
async def test_a_batch_may_mix_payloads_and_plain_objects_compressed_or_not(app: App, shape: str, packed: bool) -> None:
    raws = [body(session_id=f"S{i}") if i % 2 else json.dumps(wrapped(body(session_id=f"S{i}"))).encode() for i in range(6)]
    content = array(*raws) if shape == "array" else lines(*raws, b"", b"")
    headers = (NDJSON if shape == "ndjson" else {}) | (GZIP if packed else {})

    answer = await app.post(gzip.compress(content) if packed else content, headers=headers)

    assert answer.status_code == 202
    assert [receipt["position"] for receipt in answer.json()["receipts"]] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("raw", [body(), json.dumps(wrapped(body())).encode()], ids=["plain", "payload"])
async def test_a_single_event_may_be_compressed(app: App, raw: bytes) -> None:
    answer = await app.post(gzip.compress(raw), headers=GZIP)

    assert answer.status_code == 202
    assert answer.json()["position"] == 1


async def test_the_tables_hold_exactly_what_was_sent(app: App) -> None:
    sent = {"text": "grüße ❤", "list": [1, 2.5, None, True], "object": {"a": {"b": "c"}}, "big": 2**63 - 1, "small": -(2**63)}
    sent |= {"properties": {"session_id": "not ours"}, "payload": "not base64", "position": 7, "": "no name"}
    await app.post(body(event_id="e1", **sent))
    await app.project()

    [row] = (await app.get("/api/events")).json()["events"]

    assert row["properties"] == sent
    assert (row["session_id"], row["event_type"], row["timestamp"], row["event_id"]) == (
        "S1", "page_view", "2026-01-01T10:00:00Z", "e1",
    )  # fmt: skip


# -- receipts and statuses ---------------------------------------------------------------------------------------------


async def test_a_duplicate_is_answered_200_with_the_first_position(app: App) -> None:
    await app.post(array(body(session_id="A"), body(session_id="B")))

    answer = await app.post(body(session_id="A"))

    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["position"]) == ("duplicate", 1)


async def test_the_same_identity_with_other_content_is_a_conflict_and_writes_nothing(app: App) -> None:
    await app.post(body(n=1))

    answer = await app.post(body(n=2))

    assert answer.status_code == 409
    assert (answer.json()["status"], answer.json()["position"]) == ("conflict", 1)
    assert await app.log.last_position("acme") == 1


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"session_id": None}, "session_id"),
        ({"session_id": ""}, "session_id"),
        ({"session_id": "x" * 257}, "session_id"),
        ({"event_type": 7}, "event_type"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"timestamp": "2026-01-01T10:00:00"}, "timestamp"),
        ({"timestamp": "2026-13-01T10:00:00Z"}, "timestamp"),
        ({"event_id": 1}, "event_id"),
        ({"event_id": ""}, "event_id"),
    ],
)
async def test_a_rejected_event_is_answered_422_with_the_field_and_the_reason(app: App, sent: dict[str, Any], field: str) -> None:
    answer = await app.post(body(**sent))

    receipt = answer.json()
    assert answer.status_code == 422
    assert (receipt["status"], receipt["field"], receipt["position"]) == ("rejected", field, None)
    assert receipt["reason"]


@pytest.mark.parametrize("missing", ["session_id", "event_type", "timestamp"])
async def test_an_event_without_a_required_member_is_rejected_with_its_name(app: App, missing: str) -> None:
    value = member()
    del value[missing]

    answer = await app.post(value)

    assert (answer.status_code, answer.json()["field"], answer.json()["reason"]) == (422, missing, "is missing")


@pytest.mark.parametrize("payload", [7, None, {}, "%%%", "a", "é", "eyJ9 eyJ9", base64.b64encode(b"no json").decode()])
async def test_a_payload_that_is_not_base64_of_an_object_is_rejected(app: App, payload: Any) -> None:
    answer = await app.post({"payload": payload})

    assert (answer.status_code, answer.json()["status"]) == (422, "rejected")


@pytest.mark.parametrize("content", [b"", b"hello", b"{", b"[", b"[1,", b"[]]", b'{"a":1}{"b":2}', b"\x00", b"\xef\xbb\xbf{}"])
async def test_a_body_that_is_not_json_is_answered_400(app: App, content: bytes) -> None:
    assert_problem(await app.post(content), 400, "not-json")


@pytest.mark.parametrize("content", [b"null", b"7", b'"text"', b"true"])
async def test_a_json_value_that_is_not_an_object_is_rejected(app: App, content: bytes) -> None:
    assert (await app.post(content)).status_code == 422


@pytest.mark.parametrize(("content", "headers"), [(b"[]", {}), (b" [ ] ", {}), (b"", NDJSON), (b"\n\n", NDJSON)])
async def test_an_empty_batch_is_answered_with_no_receipts(app: App, content: bytes, headers: dict[str, str]) -> None:
    answer = await app.post(content, headers=headers)

    assert (answer.status_code, answer.json()) == (200, {"receipts": []})


async def test_receipts_come_in_the_order_sent_over_many_script_calls(app: App) -> None:
    sessions = [f"S{i}" for i in range(900)]
    odd = [body(session_id=session) for session in sessions[1::2]]
    await app.post(array(*odd))

    answer = await app.post(array(*(body(session_id=session) for session in sessions)))

    names = [hashlib.md5(f"acme{session}page_view2026-01-01T10:00:00Z".encode()).hexdigest() for session in sessions]
    receipts = answer.json()["receipts"]
    assert [receipt["event_hash"] for receipt in receipts] == names
    assert statuses(answer) == ["accepted", "duplicate"] * 450
    assert [receipt["position"] for receipt in receipts[1::2]] == list(range(1, 451))
    assert [receipt["position"] for receipt in receipts[::2]] == list(range(451, 901))


async def test_an_event_that_is_twice_in_a_batch_is_accepted_once(app: App) -> None:
    answer = await app.post(array(body(), body(), body(n=1)))

    assert statuses(answer) == ["accepted", "duplicate", "conflict"]
    assert {receipt["position"] for receipt in answer.json()["receipts"]} == {1}


def sentence_of(found: list[str]) -> int:
    """A batch's HTTP status, as documented."""
    failed = [status for status in found if status in ("conflict", "rejected")]
    good = [status for status in found if status in ("accepted", "duplicate")]
    if "accepted" in found and not failed:
        return 202
    if not failed:
        return 200
    return 207 if good else 422


GARBAGE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.text("abc", max_size=3),
    st.lists(st.none(), max_size=3),
    st.just({"payload": "%"}),
    st.just({"payload": base64.b64encode(b"[]").decode()}),
    st.sampled_from(["session_id", "event_type", "timestamp"]).map(lambda field: member(**{field: 1})),
    st.dictionaries(st.sampled_from(["session_id", "event_type", "x"]), st.text("ab", min_size=1), max_size=2),
)
GOOD = st.builds(lambda session, n: member(session_id=session, n=n), st.sampled_from("ABCDEF"), st.integers(0, 1))
RAW_LINES = st.binary(min_size=1, max_size=12).filter(lambda raw: raw.strip() and b"\n" not in raw)


def sent_as(value: Any, as_payload: bool) -> bytes:
    raw = json.dumps(value).encode()
    return json.dumps(wrapped(raw)).encode() if as_payload else raw


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    items=st.lists(st.tuples(st.one_of(GOOD, GARBAGE, RAW_LINES), st.booleans()), max_size=12),
    shape=st.sampled_from(["array", "ndjson"]),
    packed=st.booleans(),
)
async def test_any_batch_of_garbage_and_good_events_gets_a_receipt_each_in_order(
    app: App, items: list[tuple[Any, bool]], shape: str, packed: bool
) -> None:
    if shape == "array":  # bytes that are not JSON would make the whole body unreadable
        items = [item for item in items if not isinstance(item[0], bytes)]
    raws = [item if isinstance(item, bytes) else sent_as(item, as_payload) for item, as_payload in items]
    content = array(*raws) if shape == "array" else lines(*raws)
    headers = (NDJSON if shape == "ndjson" else {}) | (GZIP if packed else {})

    answer = await app.post(gzip.compress(content) if packed else content, tenant=next(new_tenants), headers=headers)

    first: dict[str, tuple[int, int]] = {}
    expected: list[tuple[str, int | None]] = []
    for item, _ in items:
        if not (isinstance(item, dict) and "n" in item):
            expected.append(("rejected", None))
        elif item["session_id"] in first:
            position, n = first[item["session_id"]]
            expected.append(("duplicate" if n == item["n"] else "conflict", position))
        else:
            first[item["session_id"]] = len(first) + 1, item["n"]
            expected.append(("accepted", len(first)))
    assert [(receipt["status"], receipt["position"]) for receipt in answer.json()["receipts"]] == expected
    assert answer.status_code == sentence_of([status for status, _ in expected])


ONE_OF_EACH = {"accepted": body(session_id="new"), "duplicate": body(), "conflict": body(n=1), "rejected": b"{}"}


@pytest.mark.parametrize(
    "present", [some for count in range(5) for some in itertools.combinations(ONE_OF_EACH, count)], ids="-".join
)
async def test_a_batchs_status_follows_from_its_receipts(app: App, present: tuple[str, ...]) -> None:
    await app.post(body())

    answer = await app.post(array(*(raw for status, raw in ONE_OF_EACH.items() if status in present)))

    assert set(statuses(answer)) == set(present)
    assert answer.status_code == sentence_of(list(present))


# -- limits ------------------------------------------------------------------------------------------------------------


def of_size(size: int) -> bytes:
    """An event of exactly this many bytes, as a client sends it."""
    raw = body(fill="x" * (size - len(body(fill=""))))
    assert len(raw) == size
    return raw


@pytest.mark.parametrize("as_payload", [False, True], ids=["plain", "payload"])
async def test_an_event_may_have_exactly_64_kib(app: App, as_payload: bool) -> None:
    exceeds, fits = (wrapped(raw) if as_payload else raw for raw in (of_size(65_537), of_size(65_536)))

    rejected, accepted = await app.post(exceeds), await app.post(fits)

    assert accepted.status_code == 202
    assert rejected.status_code == 422
    assert (rejected.json()["limit"], rejected.json()["value"]) == (65_536, 65_537)


async def test_a_too_large_event_does_not_affect_its_batch(app: App) -> None:
    answer = await app.post(array(body(session_id="A"), of_size(200_000), body(session_id="B")))

    assert answer.status_code == 207
    assert statuses(answer) == ["accepted", "rejected", "accepted"]
    assert answer.json()["receipts"][1]["limit"] == 65_536


@pytest.mark.parametrize("headers", [{}, NDJSON], ids=["array", "ndjson"])
async def test_a_request_may_have_exactly_1000_events(app: App, headers: dict[str, str]) -> None:
    raws = [body(session_id=f"S{i}") for i in range(1_001)]
    join = lines if headers else array

    refused = await app.post(join(*raws), headers=headers)
    accepted = await app.post(join(*raws[:1_000]), headers=headers)

    problem = assert_problem(refused, 413, "too-many-events")
    assert (problem["limit"], problem["value"]) == (1_000, 1_001)
    assert accepted.status_code == 202
    assert accepted.json()["receipts"][0]["position"] == 1


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
async def test_a_request_may_have_exactly_5_mib_after_unpacking(app: App, packed: bool) -> None:
    def content(size: int) -> bytes:
        raw = array(body()).ljust(size)
        return gzip.compress(raw, 1) if packed else raw

    headers = GZIP if packed else {}

    refused = await app.post(content(5 * ONE_MIB + 1), headers=headers)
    accepted = await app.post(content(5 * ONE_MIB), headers=headers)

    problem = assert_problem(refused, 413, "request-too-large")
    assert (problem["limit"], problem["value"]) == (5 * ONE_MIB, 5 * ONE_MIB + 1)
    assert accepted.status_code == 202


async def test_a_body_without_a_declared_length_is_refused_once_it_passes_the_limit(app: App) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 50 * ONE_MIB:
            sent += ONE_MIB
            yield b" " * ONE_MIB

    answer = await app.client.post("/api/events", content=endless(), headers={"X-Tenant-ID": "acme"})

    assert_problem(answer, 413, "request-too-large")
    assert sent <= 7 * ONE_MIB


async def test_a_gzip_bomb_is_refused_in_little_memory(app: App) -> None:
    bomb = gzip.compress(bytes(200 * ONE_MIB), 1)
    tracemalloc.start()

    answer = await app.post(bomb, headers=GZIP)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert_problem(answer, 413, "request-too-large")
    assert peak < 30 * ONE_MIB


@pytest.mark.parametrize("cut", [1, 8, 20])
async def test_a_gzip_body_that_is_cut_short_is_refused(app: App, cut: int) -> None:
    assert_problem(await app.post(gzip.compress(body())[:-cut], headers=GZIP), 400, "not-gzip")


async def test_a_gzip_body_with_a_wrong_checksum_is_refused(app: App) -> None:
    packed = bytearray(gzip.compress(body()))
    packed[-6] ^= 1

    assert_problem(await app.post(bytes(packed), headers=GZIP), 400, "not-gzip")


@pytest.mark.parametrize("content", [body(), b"", gzip.compress(body())[2:]], ids=["plain", "empty", "headless"])
async def test_a_body_that_claims_to_be_gzip_and_is_not_is_refused(app: App, content: bytes) -> None:
    assert_problem(await app.post(content, headers=GZIP), 400, "not-gzip")


@pytest.mark.parametrize("behind", [gzip.compress(body(n=2)), b"garbage", b"\0"], ids=["another", "garbage", "zero"])
async def test_bytes_after_a_gzip_member_are_refused(app: App, behind: bytes) -> None:
    assert_problem(await app.post(gzip.compress(body()) + behind, headers=GZIP), 415, "encoding-unsupported")


@pytest.mark.parametrize("encoding", ["gzip, gzip", "br", "deflate", "zstd", "identity, gzip", "gzip;q=1"])
async def test_another_or_a_nested_encoding_is_refused(app: App, encoding: str) -> None:
    answer = await app.post(gzip.compress(gzip.compress(body())), headers={"Content-Encoding": encoding})

    assert_problem(answer, 415, "encoding-unsupported")


async def test_an_encoding_that_is_nested_over_two_headers_is_refused(app: App) -> None:
    headers = [("X-Tenant-ID", "acme"), ("Content-Encoding", "gzip"), ("Content-Encoding", "gzip")]

    answer = await app.client.post("/api/events", content=gzip.compress(gzip.compress(body())), headers=headers)

    assert_problem(answer, 415, "encoding-unsupported")


# -- values that tables reject -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", UNHOLDABLE)
async def test_an_event_that_tables_cannot_hold_is_refused_in_every_form(app: App, name: str) -> None:
    raw = UNHOLDABLE[name]
    good = body(session_id="good")

    alone = await app.post(raw)
    payload = await app.post(wrapped(raw))
    in_lines = await app.post(lines(raw.replace(b"\n", b" "), good), headers=NDJSON)
    in_array = await app.post(array(json.dumps(wrapped(raw)).encode(), good))

    assert alone.status_code in (400, 422)
    assert (payload.status_code, payload.json()["status"]) == (422, "rejected")
    assert (in_lines.status_code, statuses(in_lines)) == (207, ["rejected", "accepted"])
    assert (in_array.status_code, statuses(in_array)) == (207, ["rejected", "duplicate"])
    assert await app.project() == 1
    assert await app.lag() == 0


async def test_an_event_nested_too_deep_does_not_affect_its_array(app: App) -> None:
    answer = await app.post(array(body(session_id="A"), event_with(deep(5_000)), body(session_id="B")))

    assert statuses(answer) == ["accepted", "rejected", "accepted"]


DEEP = b"[" * 3_000
ENDLESS = {
    "a string without an end": DEEP + b'"' + b'\\"' * 25_000,
    "a string without an end that ends in a backslash": DEEP + b'"' + b'\\"' * 25_000 + b"\\",
    "as many items as bytes": DEEP + b"]" * 3_000 + b"," * 3_000_000,
}


@pytest.mark.parametrize("what", ENDLESS)
async def test_bytes_after_a_deep_item_are_scanned_only_once(app: App, what: str) -> None:
    started = time.thread_time()

    answer = await app.post(b"[" + ENDLESS[what])

    assert answer.status_code in (400, 413)
    assert time.thread_time() - started < 0.7


LARGE = {
    "events that need the closer look": array(*[event_with("[" + ",".join(["[]"] * 21_000) + "]")] * 80),
    "events of many members": array(*[event_with(json.dumps({f"{i}": 1 for i in range(600)}))] * 850),
    "as many items as fit": array(*[b"1"] * 2_600_000),
}


@pytest.mark.parametrize("what", LARGE)
async def test_other_requests_run_while_a_large_batch_is_parsed(app: App, what: str) -> None:
    waits = []
    for _ in range(3):  # on a busy machine any attempt may be slow
        posting = asyncio.create_task(app.post(LARGE[what]))
        waits.append(0.0)
        while not posting.done():
            started = time.thread_time()  # the time of this thread, without that of other processes
            await asyncio.sleep(0)
            waits[-1] = max(waits[-1], time.thread_time() - started)
        answer = await posting
        assert answer.status_code == 413 or set(statuses(answer)[1:]) == {"duplicate"}

    assert min(waits) < 0.1


async def test_a_rejected_event_does_not_keep_its_bytes_in_memory() -> None:
    [early, late] = await parse_all([b"[", event_with('{"a": 1, "a": 2}')], partial(parse_message, limit_bytes=65_536))

    assert isinstance(early, Rejected) and isinstance(late, Rejected)
    assert early.__traceback__ is late.__traceback__ is None


def test_thousands_of_headers_are_joined_at_once() -> None:
    headers = [(b"x-%d" % i, b"") for i in range(10_000)] + [(b"x-1", b"b")]
    started = time.thread_time()

    assert headers_by_name(headers)[b"x-1"] == b",b"
    assert time.thread_time() - started < 0.3


@pytest.mark.parametrize(
    "value", ["1e308", "-1.5e-300", str(2**63 - 1), str(-(2**63)), deep(99), r'"\ud83d\ude00"', r'"\\u0000"']
)
async def test_events_just_within_the_limits_reach_the_tables(app: App, value: str) -> None:
    answer = await app.post(event_with(value))
    await app.project()

    [row] = (await app.get("/api/events")).json()["events"]
    assert answer.status_code == 202
    assert row["properties"] == {"x": json.loads(value)}


# -- tenants -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([], "tenant-missing"),
        ([("X_Tenant_ID", "acme")], "tenant-missing"),
        ([("X-Tenant_ID", "acme")], "tenant-missing"),
        ([("X-Tenant-ID", "acme"), ("X-Tenant-ID", "acme")], "tenant-ambiguous"),
        ([("X-Tenant-ID", "acme"), ("x-tenant-id", "other")], "tenant-ambiguous"),
        ([("X-Tenant-ID", "")], "tenant-invalid"),
        ([("X-Tenant-ID", "a b")], "tenant-invalid"),
        ([("X-Tenant-ID", "a{b}")], "tenant-invalid"),
        ([("X-Tenant-ID", "../a")], "tenant-invalid"),
        ([("X-Tenant-ID", "a:b")], "tenant-invalid"),
        ([("X-Tenant-ID", "-a")], "tenant-invalid"),
        ([("X-Tenant-ID", "acme, other")], "tenant-invalid"),
        ([("X-Tenant-ID", "a%00")], "tenant-invalid"),
        ([("X-Tenant-ID", "é".encode())], "tenant-invalid"),
        ([("X-Tenant-ID", "x" * 65)], "tenant-invalid"),
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/api/events"), ("GET", "/api/events")])
async def test_a_request_that_does_not_name_one_tenant_is_refused(
    app: App, method: str, path: str, headers: list[tuple[str, str | bytes]], code: str
) -> None:
    encoded = [(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in headers]

    answer = await app.client.request(method, path, headers=encoded, content=body() if method == "POST" else None)

    assert_problem(answer, 400, code)
    assert await app.log.summaries() == []


async def test_an_underscore_never_names_the_tenant(app: App) -> None:
    await app.client.post("/api/events", content=body(), headers=[("X_Tenant_ID", "other"), ("X-Tenant-ID", "acme")])

    assert [summary.tenant for summary in await app.log.summaries()] == ["acme"]


# -- unknown routes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_a_wrong_method_is_a_problem_that_names_the_right_methods(app: App, method: str) -> None:
    answer = await app.client.request(method, "/api/events")

    assert_problem(answer, 405, "method-not-allowed")
    assert {"GET", "POST"} <= set(answer.headers["allow"].replace(" ", "").split(","))


@pytest.mark.parametrize("path", ["/api", "/nowhere", "/API/EVENTS", "/api//events"])
async def test_an_unknown_path_is_a_problem(app: App, path: str) -> None:
    assert_problem(await app.get(path), 404, "not-found")
