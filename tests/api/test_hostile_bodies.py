"""No body harms the process, and each gets one clear answer.

Other clients are served meanwhile, and all accepted events reach the tables.
"""

import base64
import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.events import body
from tests.support.http import Api
from tests.support.json_values import ACCEPTED, REFUSED, UNHOLDABLE, array, lines, with_member, wrapped
from tests.support.sockets import GET, POST, answers_in, assert_refused, everything, one_answer, post_of
from tests.support.vitals import MIB, at_most, healthy, others_served

EVENT_LIMIT, REQUEST_LIMIT = 65_536, 5 * MIB
REQUEST_TIMEOUT_SECONDS = 0.7
GZIP = b"Content-Encoding: gzip"
numbers = count()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One process for all tests.

    At the end it must be healthy, its tables must be up to date, and nothing may be in quarantine.
    """
    with healthy(
        tmp_path_factory.mktemp("bodies"), REQUEST_TIMEOUT_SECONDS=REQUEST_TIMEOUT_SECONDS, NEW_TENANTS_PER_SECOND=100_000
    ) as api:
        yield api


@pytest.fixture(autouse=True)
def meanwhile(api: Api) -> Iterator[None]:
    with others_served(api):
        yield


def posted(api: Api, raw: bytes, *headers: bytes) -> tuple[int, dict[str, Any]]:
    """The only answer to a body."""
    with api.connect() as connection:
        connection.sendall(post_of(raw, *headers))
        [answer] = answers_in(one_answer(connection))
        return answer


def zeros(mib: int) -> bytes:
    """Zeros of this many MiB, compressed one MiB at a time."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join([*(packer.compress(bytes(MIB)) for _ in range(mib)), packer.flush()])


BOMB = zeros(1024)


# -- gzip --------------------------------------------------------------------------------------------------------------


def test_a_gigabyte_packed_into_a_megabyte_is_refused_in_little_memory(api: Api) -> None:
    assert len(BOMB) < 1.1 * MIB

    with at_most(api, 25):
        for _ in range(10):
            status, problem = posted(api, BOMB, GZIP)

            assert (status, problem["code"]) == (413, "request-too-large")
            assert problem["value"] > problem["limit"] == REQUEST_LIMIT


@pytest.mark.parametrize(
    ("packed", "headers", "status", "code"),
    [
        (gzip.compress(BOMB), [GZIP], 422, None),
        (gzip.compress(gzip.compress(body())), [GZIP], 400, "not-json"),
        (gzip.compress(BOMB), [b"Content-Encoding: gzip, gzip"], 415, "encoding-unsupported"),
        (gzip.compress(BOMB), [GZIP, GZIP], 415, "encoding-unsupported"),
        (gzip.compress(body()) + BOMB, [GZIP], 415, "encoding-unsupported"),
        (gzip.compress(body()) * 20_000, [GZIP], 415, "encoding-unsupported"),
        (gzip.compress(b"") * 100_000, [GZIP], 415, "encoding-unsupported"),
        (BOMB[:-9], [GZIP], 413, "request-too-large"),
        (BOMB[:9_000], [GZIP], 413, "request-too-large"),
        (gzip.compress(b"[" + b" " * (REQUEST_LIMIT - 1)), [GZIP], 400, "not-json"),
        (gzip.compress(b"[" + b"1," * 2_600_000 + b"1]"), [GZIP], 413, "too-many-events"),
        (gzip.compress(b"\n" * REQUEST_LIMIT + b"1"), [GZIP], 413, "request-too-large"),
        (gzip.compress(b"1\n" * 2_600_000), [GZIP, b"Content-Type: application/x-ndjson"], 413, "too-many-events"),
        (b"\x1f\x8b\x08\x04" + bytes(6) + b"\xff" * 60_000, [GZIP], 400, "not-gzip"),
    ],
    ids=range(14),
)  # fmt: skip
def test_malformed_gzip_is_refused_in_bounded_memory(
    api: Api, packed: bytes, headers: list[bytes], status: int, code: str | None
) -> None:
    with at_most(api, 200):  # two million items each take memory until they are counted
        for _ in range(3):
            answer = posted(api, packed, *headers)

            assert (answer[0], answer[1].get("code")) == (status, code)
            assert status not in (413, 422) or answer[1]["value"] > answer[1]["limit"]


# -- framing -----------------------------------------------------------------------------------------------------------

CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


def chunk(raw: bytes, extension: bytes = b"") -> bytes:
    return b"%x%s\r\n%s\r\n" % (len(raw), extension, raw)


def named(raw: bytes = b"") -> bytes:
    """The body of a new event."""
    return raw or body(event_id=f"framed-{next(numbers)}")


def length(text: bytes) -> bytes:
    return b"Content-Length: " + text + b"\r\n\r\n" + body()


REFUSED_FRAMES = {
    "a negative length": (length(b"-1"), 400),
    "a length in hexadecimal": (length(b"0x10"), 400),
    "an empty length": (length(b""), 400),
    "a length of 400 digits": (length(b"9" * 400), 400),
    "2^64": (length(b"18446744073709551616"), 400),
    "2^63": (length(b"9223372036854775808"), 413),
    "a length that is a list": (length(b"%d, %d" % (len(body()), len(body()))), 400),
    "the same length twice": (b"Content-Length: %d\r\n" % len(body()) + length(b"%d" % len(body())), 400),
    "a length that is too long": (length(b"%d" % (len(body()) + 5)), 408),
    "no length": (b"\r\n" + body(), 400),
    "chunked twice": (b"Transfer-Encoding: chunked\r\n" + CHUNKED + chunk(body()) + b"0\r\n\r\n", 400),
    "another coding": (b"Transfer-Encoding: xchunked\r\n\r\n" + chunk(body()), 400),
    "identity": (b"Transfer-Encoding: identity\r\n\r\n" + body(), 400),
    "a size with 0x": (CHUNKED + b"0x10\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n", 400),
    "a negative size": (CHUNKED + b"-1\r\nx\r\n0\r\n\r\n", 400),
    "no size": (CHUNKED + b"\r\nx\r\n0\r\n\r\n", 400),
    "a size of 17 digits": (CHUNKED + b"f" * 17 + b"\r\nx\r\n0\r\n\r\n", 400),
    "a size of 16 digits": (CHUNKED + b"f" * 16 + b"\r\nx", 408),
    "8 GiB that do not come": (CHUNKED + b"200000000\r\nx", 408),
    "8 GiB that come": (CHUNKED + b"200000000\r\n" + b" " * (6 * MIB), 413),
    "more than the size": (CHUNKED + b"1\r\nxx\r\n0\r\n\r\n", 400),
    "bare line feeds": (CHUNKED + b"1\nx\n0\n\n", 400),
    "an extension without end": (CHUNKED + b"1;" + b"a" * 200_000, 431),
    "a megabyte of trailers": (CHUNKED + chunk(body()) + b"0\r\n" + b"X: 1234567890\r\n" * 70_000 + b"\r\n", 431),
}
TAKEN_FRAMES = {
    "chunks of a byte": lambda raw: CHUNKED + b"".join(chunk(raw[i : i + 1]) for i in range(len(raw))) + b"0\r\n\r\n",
    "extensions": lambda raw: CHUNKED + chunk(raw, b';a=b;c="d;\\"e"') + b"0;last\r\n\r\n",
    "a size with zeros before it": lambda raw: CHUNKED + b"000" + chunk(raw) + b"000\r\n\r\n",
    "trailers": lambda raw: CHUNKED + chunk(raw) + b"0\r\nX-Tenant-ID: other\r\nContent-Encoding: br\r\n\r\n",
}


@pytest.mark.parametrize("what", REFUSED_FRAMES)
def test_a_body_with_a_wrong_length_gets_one_answer_and_the_connection_ends(api: Api, what: str) -> None:
    framed, expected = REFUSED_FRAMES[what]
    with api.connect() as connection:
        connection.sendall(POST + framed)
        [(status, problem)] = answers_in(everything(connection))

    assert (status, problem["status"]) == (expected, expected)
    assert problem["code"] in {
        400: ("not-http", "not-json"), 408: ("request-too-slow",), 413: ("request-too-large",), 431: ("headers-too-large",)
    }[status]  # fmt: skip
    assert ("limit" in problem) == (status != 400)


@pytest.mark.parametrize("what", TAKEN_FRAMES)
def test_a_body_with_unusual_but_valid_chunks_is_accepted(api: Api, what: str) -> None:
    with api.connect() as connection:
        connection.sendall(POST + TAKEN_FRAMES[what](named()))
        [(status, receipt)] = answers_in(one_answer(connection))

    assert (status, receipt["status"]) == (202, "accepted")


def test_a_body_of_thousands_of_chunks_is_refused_and_the_connection_goes_on(api: Api) -> None:
    with api.connect() as connection:
        connection.sendall(POST + CHUNKED + chunk(b" " * 64) * (6 * MIB // 64) + b"0\r\n\r\n")
        assert_refused(one_answer(connection), 413, "request-too-large")
        connection.sendall(GET)

        assert answers_in(one_answer(connection)) == [(200, {"status": "ok"})]


# -- content -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(api: Api) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=api.url, timeout=20) as client:
        yield client


def in_every_form(client: httpx.Client, raw: bytes) -> list[tuple[int, dict[str, Any]]]:
    """The status and receipt of an event in every form, each for a new tenant.

    The forms are: alone, as a payload, and beside a valid event in an array, as a line, and as a payload.
    """
    good = body(event_id="good")
    forms: list[tuple[bytes, str]] = [
        (raw, ""),
        (json.dumps(wrapped(raw)).encode(), ""),
        (array(good, json.dumps(wrapped(raw)).encode()), ""),
        (lines(good, raw.replace(b"\n", b" ")), "application/x-ndjson"),
        (array(good, raw), ""),
    ]
    answers = []
    for content, kind in forms:
        headers = {"X-Tenant-ID": f"form-{next(numbers)}"} | ({"Content-Type": kind} if kind else {})
        answer = client.post("/api/events", content=content, headers=headers)
        receipts = answer.json().get("receipts")
        if receipts:
            assert (len(receipts), receipts[0]["status"]) == (2, "accepted"), receipts
        answers.append((answer.status_code, receipts[1] if receipts else answer.json()))
    return answers


HOSTILE = {
    **{f"member: {name}": with_member(value) for name, value in REFUSED.items()},
    **{f"event: {name}": raw for name, raw in UNHOLDABLE.items()},
    **{f"{levels} arrays": with_member(b"[" * levels + b"]" * levels) for levels in (100, 1_000, 10_000, 100_000)},
    **{f"{levels} objects": with_member(b'{"a":' * levels + b"1" + b"}" * levels) for levels in (100, 1_000, 10_000, 100_000)},
    **{f"{levels} arrays without end": with_member(b"[" * levels) for levels in (100, 100_000)},
    "100,000 properties": with_member(b"1," + b",".join(b'"k%d":1' % i for i in range(100_000))),
    "100,000 elements": with_member(b"[" + b"1," * 99_999 + b"1]"),
    "base64 garbage": b'{"payload":"%s"}' % (b"%" * 40),
    "base64 of garbage": b'{"payload":"%s"}' % base64.b64encode(bytes(range(256))),
    "base64 of a bomb": b'{"payload":"%s"}' % base64.b64encode(zeros(64)[:40_000]),
    "a payload in a payload": json.dumps(wrapped(json.dumps(wrapped(body())).encode())).encode(),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_an_event_that_cannot_be_stored_is_refused_in_every_form(client: httpx.Client, what: str) -> None:
    raw = HOSTILE[what]

    answers = in_every_form(client, raw)

    for status, answer in answers:
        assert status in (207, 400, 422)
        assert status != 207 or answer["status"] == "rejected"
        assert ("value" in answer or status == 400) <= ("limit" in answer or status == 400)
    if len(raw) > 3 * EVENT_LIMIT:
        assert {(answer["limit"], answer["value"] > EVENT_LIMIT) for _, answer in answers if "limit" in answer} >= {
            (EVENT_LIMIT, True)
        }


@pytest.mark.parametrize("value", [*ACCEPTED.values(), *(b"[" * n + b"]" * n for n in (10, 50, 99))], ids=lambda raw: raw[:12])
def test_an_event_that_can_be_stored_is_accepted_in_every_form(client: httpx.Client, value: bytes) -> None:
    answers = in_every_form(client, with_member(value))

    assert [status for status, _ in answers] == [202] * 5
    assert {answer["status"] for _, answer in answers} == {"accepted"}


@pytest.mark.parametrize(
    ("content", "status", "limit"),
    [
        (with_member(b'"' + b"x" * (10 * MIB) + b'"'), 413, REQUEST_LIMIT),
        (array(with_member(b'"' + b"x" * (10 * MIB) + b'"')), 413, REQUEST_LIMIT),
        (with_member(b'"' + b"x" * (4 * MIB) + b'"'), 422, EVENT_LIMIT),
        (body(session_id="x" * 60_000), 422, 256),
        (body(timestamp="9" * 60_000), 422, 64),
        (body(event_id="\u00e9" * 200), 422, 256),
    ],
    ids=range(6),
)
def test_a_long_string_is_refused_with_the_limit_and_its_size(api: Api, content: bytes, status: int, limit: int) -> None:
    answered_status, answer = posted(api, content)

    assert answered_status == status
    assert answer["value"] > answer["limit"] == limit


# -- slow to parse -----------------------------------------------------------------------------------------------------

DEEP = b"[" * 3_001
BUSY = {
    "a string without an end behind something deep": (DEEP + b'"' + b'\\"' * 2_600_000, {400}),
    "brackets behind something deep": (DEEP + b"[]," * 1_700_000, {400}),
    "commas behind something deep": (DEEP + b"]" * 3_000 + b"," * 5_000_000, {413}),
    "80 events that need a closer look": (array(*[with_member(b"[" + b"[]," * 21_000 + b"1]")] * 80), {202, 200}),
    "80 events with a key twice": (
        array(*[with_member(b"1," + b"".join(b'"k%04d":1,' % i for i in range(5_000)) + b'"k4999":1')] * 80), {422}
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BUSY)
def test_a_body_that_takes_long_to_parse_does_not_delay_others(api: Api, what: str) -> None:
    content, status = BUSY[what]

    with at_most(api, 80):
        statuses = {posted(api, content)[0] for _ in range(3)}

    assert statuses <= status


def test_thousands_of_headers_do_not_delay_others(api: Api) -> None:
    many = b"".join(b"%x:\r\n" % i for i in range(5_000))
    with api.connect() as connection:
        connection.sendall(POST + many + b"1:\r\nContent-Length: 2\r\n\r\n[]")
        received = one_answer(connection)

    assert answers_in(received)[0][0] in (200, 431)


def test_many_slow_requests_are_refused_at_the_deadline(api: Api) -> None:
    connections = [api.connect() for _ in range(100)]
    for connection in connections:
        connection.sendall(POST + b"Content-Length: 1000000\r\n\r\n" + b"x" * 100_000)
    received = [everything(connection) for connection in connections]
    for connection in connections:
        connection.close()

    for answer in received:
        assert_refused(answer, 408, "request-too-slow")


# -- many clients ------------------------------------------------------------------------------------------------------


def test_many_large_bodies_are_bounded_together_and_small_bodies_pass(tmp_path: Path) -> None:
    half = POST + b"Content-Length: 5000000\r\n\r\n" + b" " * 4_900_000
    with healthy(tmp_path, REQUEST_TIMEOUT_SECONDS=20) as api, others_served(api), at_most(api, 240), ExitStack() as stack:
        connections = [stack.enter_context(api.connect(20)) for _ in range(60)]  # 280 MiB; the budget is 128
        refused = []
        for connection in connections:
            with suppress(OSError):  # it may be refused while it sends
                connection.sendall(half)
        for connection in connections:
            connection.settimeout(0.05)
            with suppress(OSError):
                if received := connection.recv(65_536):
                    refused.append(received)

        assert 20 < len(refused) < 60
        for received in refused:
            assert received.startswith(b"HTTP/1.1 503") and b"overloaded" in received and b"retry-after" in received.lower()
