"""Slow, large, malformed and vanished clients hold nothing up.

Each test speaks to a real process through a socket.
"""

import gzip
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.clock import stopwatch
from tests.support.events import body
from tests.support.http import Api, running, wait_until
from tests.support.servers import Server
from tests.support.sockets import GET, POST, answers_in, assert_refused, everything, one_answer, post_of

REQUEST_TIMEOUT_SECONDS = 0.7
ADDRESS_LIMIT = 20


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One process for all tests; it must be healthy after each."""
    folder = tmp_path_factory.mktemp("protocol")
    server = Server("valkey", folder / "server").start()
    try:
        with running(
            server,
            folder / "api",
            REQUEST_TIMEOUT_SECONDS=REQUEST_TIMEOUT_SECONDS,
            MAX_CONNECTIONS_PER_ADDRESS=ADDRESS_LIMIT,
            READ_WAIT_TIMEOUT_SECONDS=1.2,
        ) as api:
            yield api
    finally:
        server.stop()


@pytest.fixture(autouse=True)
def nothing_stays(api: Api) -> Iterator[None]:
    yield
    assert api.process.poll() is None
    assert wait_until(lambda: httpx.get(f"{api.url}/healthz").status_code == 200, "it answers others")
    assert "Traceback" not in api.said
    assert "Exception in ASGI" not in api.said


# -- slow --------------------------------------------------------------------------------------------------------------


BEGINNINGS = {
    "nothing": b"",
    "half a line": b"POST",
    "half a head": POST,
    "no body": POST + b"Content-Length: 100\r\n\r\n",
    "half a body": POST + b"Content-Length: 100\r\n\r\n" + b"x" * 50,
    "half a chunked body": POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
}


def test_a_request_that_stops_half_way_is_answered_408_and_closed_at_the_deadline(api: Api) -> None:
    with stopwatch() as watch, ExitStack() as stack:
        connections = {name: stack.enter_context(api.connect()) for name in BEGINNINGS}
        for name, connection in connections.items():
            connection.sendall(BEGINNINGS[name])
        received = {name: everything(connection) for name, connection in connections.items()}
        seconds, wall_seconds = watch.seconds, watch.wall_seconds

    for name in BEGINNINGS:
        assert_refused(received[name], 408, "request-too-slow")
    assert wall_seconds > REQUEST_TIMEOUT_SECONDS * 0.9
    assert seconds < REQUEST_TIMEOUT_SECONDS + 1


@pytest.mark.parametrize("more", [b"", b"x" * 300_000, b"5\r\nhello\r\nno length\r\n"], ids=["nothing more", "more", "no chunk"])
def test_a_request_answered_before_its_body_arrived_gets_no_second_answer(api: Api, more: bytes) -> None:
    with api.connect() as connection:
        kind = b"Transfer-Encoding: chunked" if more.startswith(b"5") else b"Content-Length: 99999999"
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: x\r\n" + kind + b"\r\n\r\n")
        first = one_answer(connection)
        connection.sendall(more)
        rest = everything(connection)

    assert answers_in(first)[0][0] == 404
    assert rest == b""


@pytest.mark.parametrize("beginning", [POST + b"X-Slow: ", POST + b"Content-Length: 1000\r\n\r\n"], ids=["head", "body"])
def test_slow_bytes_do_not_move_the_deadline(api: Api, beginning: bytes) -> None:
    with stopwatch() as watch, api.connect(0.1) as connection:
        connection.sendall(beginning)
        received = b""
        while not received and watch.wall_seconds < 60:
            connection.sendall(b"x")
            try:
                received = connection.recv(65_536)
            except TimeoutError:
                continue
        seconds = watch.seconds

    assert_refused(received, 408, "request-too-slow")
    assert seconds < REQUEST_TIMEOUT_SECONDS + 1


def test_the_deadline_belongs_to_a_request_and_not_to_a_connection(api: Api) -> None:
    with api.connect() as connection:
        for _ in range(3):
            connection.sendall(GET)
            assert b"200 OK" in one_answer(connection)
            time.sleep(REQUEST_TIMEOUT_SECONDS * 0.6)


def test_the_second_request_of_a_connection_has_a_deadline_too(api: Api) -> None:
    with api.connect() as connection:
        connection.sendall(GET)
        assert b"200 OK" in one_answer(connection)
        connection.sendall(POST)

        assert_refused(everything(connection), 408, "request-too-slow")


def test_a_slow_second_request_does_not_take_the_answer_of_the_first(api: Api) -> None:
    wait = b"GET /api/events?after=1 HTTP/1.1\r\nHost: x\r\nX-Tenant-ID: nobody\r\n\r\n"
    with api.connect() as connection:
        connection.sendall(wait + POST)
        first, *_ = answers_in(everything(connection))

    assert (first[0], first[1]["code"]) == (503, "not-yet-projected")


# -- large -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(POST + b"X-Large: " + b"x" * 100_000 + b"\r\n\r\n", id="one header"),
        pytest.param(POST + b"".join(b"X-%d: %s\r\n" % (i, b"x" * 90) for i in range(1_000)) + b"\r\n", id="many headers"),
        pytest.param(b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", id="the target"),
        pytest.param(POST + b"X-" + b"x" * 100_000 + b": 1\r\n\r\n", id="a header's name"),
        pytest.param(POST + b"".join(b"X%d:\r\n" % (i % 10) for i in range(20_000)) + b"\r\n", id="empty headers"),
    ],
)
def test_100_kb_of_headers_are_answered_431(api: Api, head: bytes) -> None:
    with api.connect() as connection:
        connection.sendall(head)
        received = everything(connection)

    problem = assert_refused(received, 431, "headers-too-large")
    assert problem["value"] > problem["limit"] == 32 * 1024


def test_a_client_that_goes_on_sending_after_a_431_still_reads_it(api: Api) -> None:
    with api.connect() as connection:
        for _ in range(20):
            connection.sendall(POST + b"X-Large: " + b"x" * 50_000)
            time.sleep(0.01)

        assert_refused(everything(connection), 431, "headers-too-large")


@pytest.mark.parametrize(
    "beginning",
    [
        pytest.param(POST + b"X-Large: ", id="a value"),
        pytest.param(POST + b"X-", id="a name"),
        pytest.param(b"GET /", id="a target"),
        pytest.param(POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\nX: ", id="a trailer"),
    ],
)
def test_an_endless_header_is_refused_long_before_the_deadline(tmp_path: Path, beginning: bytes) -> None:
    chunk, most = b"x" * 65_536, 16 * 1024 * 1024  # the buffers of the sockets may hold much of it
    sent = 0
    with own_api(tmp_path) as api, api.connect() as connection:
        connection.sendall(beginning)
        with suppress(OSError):
            while sent < most:
                connection.sendall(chunk)
                sent += len(chunk)

    assert sent < most


def test_a_chunked_body_over_the_limit_is_answered_413(api: Api) -> None:
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    with api.connect() as connection:
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 6)
        received = one_answer(connection)

    problem = assert_refused(received, 413, "request-too-large")
    assert problem["limit"] == 5 * 1024 * 1024 < problem["value"]


def test_a_declared_length_over_the_limit_is_answered_413_before_the_body(api: Api) -> None:
    with api.connect() as connection:
        connection.sendall(POST + b"Content-Length: 6000000\r\n\r\n")
        received = one_answer(connection)

    problem = assert_refused(received, 413, "request-too-large")
    assert (problem["limit"], problem["value"]) == (5 * 1024 * 1024, 6_000_000)


def test_a_client_that_expects_100_continue_gets_it_and_then_its_answer(api: Api) -> None:
    raw = body(session_id="expect")
    with api.connect() as connection:
        connection.sendall(POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(raw))
        interim = connection.recv(65_536)
        connection.sendall(raw)
        [(status, receipt)] = answers_in(one_answer(connection))

    assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert (status, receipt["status"]) == (202, "accepted")


def test_a_client_that_expects_100_continue_for_too_much_is_refused(api: Api) -> None:
    with api.connect() as connection:
        connection.sendall(POST + b"Expect: 100-continue\r\nContent-Length: 6000000\r\n\r\n")

        assert_refused(one_answer(connection), 413, "request-too-large")


def test_a_chunked_and_compressed_body_is_accepted(api: Api) -> None:
    packed = gzip.compress(body(session_id="chunked"))
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(packed[i : i + 7]), packed[i : i + 7]) for i in range(0, len(packed), 7))
    with api.connect() as connection:
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n" + chunks + b"0\r\n\r\n")
        [(status, _)] = answers_in(one_answer(connection))

    assert status == 202


@pytest.mark.parametrize("trailer", [b"X-Tenant-ID: other", b"Content-Encoding: br", b"Authorization: Bearer x", b"Expect: x"])
def test_a_trailer_is_ignored(api: Api, trailer: bytes) -> None:
    raw = body(session_id="trailer")
    chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n%s\r\n\r\n" % (len(raw), raw, trailer)
    with api.connect() as connection:
        connection.sendall(POST + chunked)
        [(status, receipt)] = answers_in(one_answer(connection))
    with api.connect() as connection:
        connection.sendall(POST.replace(b"X-Tenant-ID: acme\r\n", b"") + chunked)
        [(nobody, problem)] = answers_in(one_answer(connection))

    assert (status, receipt["status"]) in ((202, "accepted"), (200, "duplicate"))
    assert (nobody, problem["code"]) == (400, "tenant-missing")


# -- malformed ---------------------------------------------------------------------------------------------------------

SMUGGLED = b"POST /api/events HTTP/1.1\r\nHost: x\r\nX-Tenant-ID: smuggled\r\nContent-Length: 2\r\n\r\n[]"


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", id="length, then chunked"),
        pytest.param(b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", id="chunked, then length"),
        pytest.param(b"Content-Length: 5\r\nContent-Length: 6\r\n", id="two lengths"),
        pytest.param(b"Content-Length: +5\r\n", id="a signed length"),
        pytest.param(b"Content-Length: 5 5\r\n", id="a length of two numbers"),
        pytest.param(b"Transfer-Encoding : chunked\r\n", id="a space behind the name"),
        pytest.param(b"Transfer-Encoding: chunked, identity\r\n", id="chunked is not last"),
        pytest.param(b"X: 1\r\n Content-Length: 5\r\n", id="a folded header"),
        pytest.param(b"X: 1\nContent-Length: 5\n", id="bare line feeds"),
        pytest.param(b"X: a\0b\r\n", id="NUL in a value"),
    ],
)
def test_a_request_with_an_ambiguous_end_is_refused_with_all_that_follows(api: Api, head: bytes) -> None:
    with api.connect() as connection:
        connection.sendall(POST + head + b"\r\n0\r\n\r\n" + SMUGGLED)
        received = everything(connection)

    assert_refused(received, 400, "not-http")


@pytest.mark.parametrize(
    "raw", [b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/9.9\r\n\r\n", b"GET  HTTP/1.1\r\n\r\n"]
)
def test_bytes_that_are_not_http_are_answered_400_and_closed(api: Api, raw: bytes) -> None:
    with api.connect() as connection:
        connection.sendall(raw)

        assert_refused(everything(connection), 400, "not-http")


@pytest.mark.parametrize(
    "target", [b"*", b"http://x/healthz", b"//healthz", b"/%00", b"/api/sessions/%ff%00", b"x:1", b"/healthz?%", b"/healthz#"]
)
@pytest.mark.parametrize("method", [b"GET", b"OPTIONS", b"CONNECT"])
def test_an_unusual_target_gets_exactly_one_answer(api: Api, method: bytes, target: bytes) -> None:
    with api.connect() as connection:
        connection.sendall(method + b" " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        [(status, answer)] = answers_in(everything(connection))

    assert status in (200, 400, 404, 405)
    assert status == 200 or answer["code"]


def test_headers_that_are_too_large_do_not_spill_their_body_into_the_request_before(api: Api) -> None:
    first = b"[" + body(session_id="first") + b","
    second = POST + b"X-Large: " + b"x" * 40_000 + b"\r\nContent-Length: 3\r\n\r\n{}]"
    with api.connect() as connection:
        connection.sendall(post_of(first).replace(b"acme", b"spill") + second)
        everything(connection)

    answer = httpx.post(f"{api.url}/api/events", content=body(session_id="first"), headers={"X-Tenant-ID": "spill"})
    assert answer.json()["status"] == "accepted"  # the first body alone is not JSON, so nothing of it was accepted


UPGRADE = (b"Connection: Upgrade", b"Upgrade: websocket")


@pytest.mark.parametrize("hash_parts", [False, True], ids=["at once", "body later"])
@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
def test_the_body_of_an_upgrade_request_is_never_lost_or_taken_for_a_request(api: Api, protocol: bytes, hash_parts: bool) -> None:
    raw = post_of(SMUGGLED, b"Connection: Upgrade", b"Upgrade: " + protocol)
    head, end, rest = raw.partition(b"\r\n\r\n")
    output_before = api.said
    with api.connect() as connection:
        connection.sendall(head + end if hash_parts else raw)
        time.sleep(0.05)
        connection.sendall(rest if hash_parts else b"")

        assert_refused(everything(connection), 400, "upgrade-unsupported")
    assert api.said == output_before


def test_an_upgrade_is_ignored_and_nothing_after_it_is_answered(api: Api) -> None:
    with api.connect() as connection:
        connection.sendall(GET.replace(b"\r\n\r\n", b"\r\n" + b"\r\n".join(UPGRADE) + b"\r\n\r\n") + GET)
        answers = answers_in(everything(connection))

    assert answers == [(200, {"status": "ok"})]


@pytest.mark.parametrize("behind", [b"", b"no chunk"], ids=["nothing", "garbage"])
def test_a_client_refused_before_its_body_gets_no_second_answer(api: Api, behind: bytes) -> None:
    head = b"Transfer-Encoding: chunked\r\nX-Tenant-ID: twice\r\n\r\n5\r\nhello\r\n"
    with api.connect() as connection:
        connection.sendall(POST + head)
        refused = one_answer(connection)
        with suppress(OSError):
            connection.sendall(behind)
        rest = everything(connection)

    assert_refused(refused, 400, "tenant-ambiguous")
    assert rest == b""


# -- many --------------------------------------------------------------------------------------------------------------


def test_too_many_connections_of_an_address_are_answered_503_and_the_others_go_on(api: Api) -> None:
    with ExitStack() as stack:
        held = [stack.enter_context(api.connect()) for _ in range(ADDRESS_LIMIT)]
        for connection in held:
            connection.sendall(GET)
            assert b"200 OK" in one_answer(connection)
        too_many = stack.enter_context(api.connect())
        received = everything(too_many)
        held[0].sendall(GET)
        still = one_answer(held[0])

        problem = assert_refused(received, 503, "too-many-connections")
        assert (problem["limit"], problem["value"]) == (ADDRESS_LIMIT, ADDRESS_LIMIT + 1)
        assert b"retry-after" in received.lower()
        assert b"200 OK" in still


def test_connections_that_ended_are_not_counted(api: Api) -> None:
    for _ in range(ADDRESS_LIMIT * 3):
        with api.connect() as connection:
            connection.sendall(GET)
            assert b"200 OK" in one_answer(connection)


def test_idle_connections_lock_others_out_no_longer_than_the_deadline(api: Api) -> None:
    with ExitStack() as stack:
        for _ in range(ADDRESS_LIMIT * 2):
            stack.enter_context(api.connect())

        wait_until(lambda: _status(api) == 200, "there is room again", REQUEST_TIMEOUT_SECONDS + 3)


def _status(api: Api) -> int:
    try:
        return httpx.get(f"{api.url}/healthz").status_code
    except httpx.TransportError:
        return 0


# -- kept alive --------------------------------------------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_order(api: Api) -> None:
    raws = [body(session_id=f"P{i}") for i in range(20)]
    with api.connect() as connection:
        connection.sendall(b"".join(map(post_of, raws)) + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        *receipts, last = answers_in(everything(connection))

    assert [status for status, _ in receipts] == [202] * 20
    positions = [receipt["position"] for _, receipt in receipts]
    assert positions == list(range(positions[0], positions[0] + 20))
    assert last == (200, {"status": "ok"})


def test_a_connection_serves_request_after_request(api: Api) -> None:
    with httpx.Client(base_url=api.url, headers={"X-Tenant-ID": "alive"}) as client:
        answers = [client.post("/api/events", content=body(session_id=f"K{i}")) for i in range(10)]
        streams = {answer.extensions["network_stream"].get_extra_info("client_addr") for answer in answers}

    assert [answer.status_code for answer in answers] == [202] * 10
    assert len(streams) == 1


def test_head_is_answered_at_once_and_the_connection_goes_on(api: Api) -> None:
    with httpx.Client(base_url=api.url, timeout=60) as client:
        answers = [client.head("/healthz") for _ in range(3)]
        streams = {answer.extensions["network_stream"].get_extra_info("client_addr") for answer in answers}

    assert [(answer.status_code, answer.headers["content-length"]) for answer in answers] == [(200, "15")] * 3
    assert len(streams) == 1


def test_after_a_refused_body_the_connection_still_works(api: Api) -> None:
    with api.connect() as connection:
        connection.sendall(post_of(b"no json") + post_of(b"[]", b"Content-Encoding: br") + post_of(b"[]"))
        connection.sendall(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        answers = answers_in(everything(connection))

    assert [status for status, _ in answers] == [400, 415, 200, 200]


# -- disconnected ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hard", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(POST + b"Content-Length: 1000\r\n\r\nhalf", id="half a body"),
        pytest.param(post_of(body(session_id="gone")), id="all but the reading"),
        pytest.param(b"GET /api/events?after=999 HTTP/1.1\r\nHost: x\r\nX-Tenant-ID: acme\r\n\r\n", id="a read that waits"),
    ],
)
def test_a_client_that_disconnects_leaves_no_trace(api: Api, raw: bytes, hard: bool) -> None:
    output_before = api.said
    with api.connect() as connection:
        if hard:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.sendall(raw)
        time.sleep(0.05)

    assert httpx.get(f"{api.url}/healthz").status_code == 200
    assert api.said == output_before


# -- shutdown ----------------------------------------------------------------------------------------------------------


@contextmanager
def own_api(folder: Path, **settings: Any) -> Iterator[Api]:
    """A process that the test may end."""
    server = Server("valkey", folder / "server").start()
    try:
        with running(server, folder / "api", **settings) as api:
            yield api
    finally:
        server.stop()


def test_a_slow_client_does_not_delay_the_shutdown(tmp_path: Path) -> None:
    with own_api(tmp_path) as api, api.connect() as half, api.connect() as idle, api.connect() as alive:
        half.sendall(POST + b"Content-Length: 1000\r\n\r\nhalf")
        alive.sendall(GET)
        assert b"200 OK" in one_answer(alive)
        api.process.terminate()

        api.process.wait(30)

        assert everything(idle) == b""
        assert "Traceback" not in api.said


def test_a_waiting_read_does_not_delay_the_shutdown(tmp_path: Path) -> None:
    with own_api(tmp_path, READ_WAIT_TIMEOUT_SECONDS=30) as api, api.connect() as waiting:
        waiting.sendall(b"GET /api/events?after=1 HTTP/1.1\r\nHost: x\r\nX-Tenant-ID: acme\r\n\r\n")
        time.sleep(0.2)
        api.process.terminate()

        api.process.wait(30)


def test_a_complete_request_is_answered_before_the_shutdown(tmp_path: Path) -> None:
    with own_api(tmp_path, READ_WAIT_TIMEOUT_SECONDS=1) as api, api.connect() as connection:
        connection.sendall(b"GET /api/events?after=1 HTTP/1.1\r\nHost: x\r\nX-Tenant-ID: acme\r\n\r\n")
        time.sleep(0.2)
        api.process.terminate()
        [(status, problem)] = answers_in(everything(connection))

        assert (status, problem["code"]) == (503, "not-yet-projected")
        api.process.wait(30)
