"""With AUTH=open, no name, filter, cursor or number of tenants does harm."""

import resource
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest

from projector.store.sqlite import SqliteStore
from projector.store.sqlite.table_set import TableSet
from tests.support.events import body
from tests.support.http import Api, wait_until
from tests.support.sockets import GET, answers_in, assert_refused, everything, one_answer
from tests.support.vitals import healthy, others_served

CONNECTIONS, ADDRESS_LIMIT = 2_000, 1_024  # the default
TENANTS, SOCKETS, WINDOW = 100_000, 4, 250


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tenants")


@pytest.fixture(scope="module")
def api(folder: Path) -> Iterator[Api]:
    """A process with default settings, and events of two tenants."""
    with healthy(folder) as api:
        for tenant in ("acme", "victim"):
            content = b"[" + b",".join(body(session_id=f"S{i}", of=tenant) for i in range(3)) + b"]"
            assert httpx.post(f"{api.url}/api/events", content=content, headers={"X-Tenant-ID": tenant}).status_code == 202
            path = f"{api.url}/api/events?after=3"
            assert httpx.get(path, headers={"X-Tenant-ID": tenant}, timeout=10).text.count(f'"of":"{tenant}"') == 3
        yield api


@pytest.fixture(autouse=True)
def meanwhile(api: Api) -> Iterator[None]:
    with others_served(api):
        yield


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Every row of the two tenants, and every quarantined record."""
    with SqliteStore(str(folder / "api" / "penstock.db"), cache_mib=8) as store, store.reading() as connection:
        live = TableSet(connection)
        tables = ("events", "event_sessions", "quarantine")
        return [dict(row) for tenant, table in product(("acme", "victim"), tables) for row in live.rows(table, tenant)]


# -- names -------------------------------------------------------------------------------------------------------------

NAMES = {
    "a slash": b"a/b", "two dots": b"..", "up and down": b"../victim", "a brace": b"{1}:log:victim", "a closing brace": b"}:log:victim",
    "both": b"a{b}", "an escaped NUL": b"victim%00", "an escaped letter": b"%76ictim", "a NUL": b"victim\0", "a line": b"a\nb",
    "two lines": b"a\r\n b", "a return": b"a\rb", "a space": b"a b", "a space before a comma": b"acme ,victim", "a tab": b"a\tb",
    "UTF-8": "\u00e9".encode(), "Latin-1": b"\xe9", "no UTF-8": b"\xff\xfe", "a small i without dot": "v\u0131ctim".encode(),
    "a letter of double width": "\uff56ictim".encode(), "65 letters": b"x" * 65, "10,000 letters": b"x" * 10_000, "nothing": b"",
    "a blank": b"   ", "a dash first": b"-victim", "a colon": b"acme:victim", "a star": b"*", "a bracket": b"[a-z]*", "a quote": b"' OR 1=1 --",
    "a semicolon": b"acme;victim", "two": b"acme, victim",
}  # fmt: skip


@pytest.mark.parametrize("what", NAMES)
@pytest.mark.parametrize("line", [b"POST /api/events", b"GET /api/events", b"GET /api/receipts/1", b"GET /api/sessions/S0"])
def test_an_invalid_tenant_name_is_refused(api: Api, line: bytes, what: str) -> None:
    content = body(n="name") if line.startswith(b"POST") else b""
    head = b"%s HTTP/1.1\r\nHost: x\r\nX-Tenant-ID: %s\r\nConnection: close\r\n" % (line, NAMES[what])
    with api.connect() as connection:
        connection.sendall(head + b"Content-Length: %d\r\n\r\n%s" % (len(content), content))
        [(status, problem)] = answers_in(everything(connection))

    assert (status, problem["status"]) == (400, 400)
    assert problem["code"] in ("tenant-invalid", "not-http")
    assert "victim" not in problem["detail"]


# -- filters -----------------------------------------------------------------------------------------------------------

VALUES = {
    "a quote": "%27", "two quotes": "%22%22", "true": "%27%20OR%20%271%27=%271", "a second statement": "%27;DROP%20TABLE%20events;--",
    "a union": "%27%20UNION%20SELECT%20*%20FROM%20events--", "a percent": "%25", "an underscore": "S_", "a star": "*", "a class": "[S]0",
    "a question": "S%3F", "a backslash": "%5C", "NUL": "%00", "NUL behind": "S0%00", "a line": "%0D%0AX-Evil:%201", "a command": "*1%0D%0A$8%0D%0AFLUSHALL%0D%0A",
    "a lone surrogate": "%ED%A0%80", "an overlong slash": "%C0%AF", "an overlong NUL": "%C0%80", "no UTF-8": "%FF%FE", "half an escape": "%", "no escape": "%zz",
    "10 KB": "x" * 10_000, "10 KB of escapes": "%27" * 3_400, "a key": "%7B1%7D:log:victim", "a format": "%7B0%7D%25s$(id)", "a number past all": "9" * 400,
    "another alphabet": "%D9%A1", "a minus": "-1", "a float": "1e3", "an array": "[]", "null": "null",
}  # fmt: skip
PARAMETERS = {
    "/api/events": ("session_id", "event_type", "since", "until", "cursor", "limit", "after"),
    "/api/sessions": ("session_id", "event_type", "since", "until", "cursor", "limit", "after"),
    "/api/sessions/S0": ("cursor", "limit", "after"),
    "/api/receipts": ("event_hash", "after"),
    "/api/receipts/1": ("after",),
}


@pytest.mark.parametrize("what", VALUES)
def test_no_filter_value_shows_another_tenants_rows_or_changes_anything(api: Api, folder: Path, what: str) -> None:
    value, before = VALUES[what], rows_of(folder)
    targets = [f"{path}?{name}={value}" for path, names in PARAMETERS.items() for name in names]
    twice = [f"{path}?{name}=S0&{name}={value}" for path, names in PARAMETERS.items() for name in names]
    unknown = [f"{path}?{name}=1" for path in PARAMETERS for name in (value, "tenant_id", "x%00", "limit%00")]
    named = [f"/api/sessions/{value}", f"/api/receipts/{value}", f"/api/sessions/{value}?limit=1"]
    with api.connect() as connection:
        answers = {}
        for target in targets + twice + unknown + named:
            connection.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\nX-Tenant-ID: acme\r\n\r\n" % target.encode())
            received = one_answer(connection)
            assert b"evil" not in received.lower().partition(b"\r\n\r\n")[0]
            assert b"victim" not in received.replace(b"{1}:log:victim", b"")
            [answers[target]] = answers_in(received)

    assert {status for status, _ in answers.values()} <= {200, 400, 404}
    assert {answers[target][0] for target in twice + unknown} <= {400, 404}
    assert {answers[target][0] for target in named} <= {400, 404}
    for target in targets:
        status, answer = answers[target]
        if "session_id=" in target or "event_type=" in target:
            assert (status, answer.get("events", answer.get("sessions"))) == (200, []), target
        else:
            assert (status, answer["code"]) in ((400, "invalid-parameter"), (503, "not-yet-projected")), target
    assert rows_of(folder) == before


def test_no_forged_cursor_shows_another_tenants_rows(api: Api) -> None:
    cursors = ["LTkuLTk", "OTk5OTk5OTk5OTk5OTk5OTk5LjE", "MC4w", "Li4", "MS4x" * 2_000, "MV8wLjE"]
    for path, cursor in product(("/api/events", "/api/sessions", "/api/sessions/S0"), cursors):
        answer = httpx.get(f"{api.url}{path}?cursor={cursor}", headers={"X-Tenant-ID": "acme"})

        assert answer.status_code in (200, 400)
        assert "victim" not in answer.text


# -- many --------------------------------------------------------------------------------------------------------------


def pipelined(api: Api, requests: Callable[[int], bytes], count: int) -> Counter[int]:
    """How often each status was answered to many pipelined requests."""

    def through_one(numbers: range) -> Counter[int]:
        statuses: Counter[int] = Counter()
        with api.connect(30) as connection:
            for start in range(0, len(numbers), WINDOW):
                window = numbers[start : start + WINDOW]
                connection.sendall(b"".join(map(requests, window)))
                received = b""
                while received.count(b"HTTP/1.1 ") < len(window) or not received.endswith(b"}"):
                    received += connection.recv(1 << 20)
                statuses.update(int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:])
        return statuses

    with ThreadPoolExecutor(SOCKETS) as pool:
        return sum(pool.map(through_one, [range(count)[i::SOCKETS] for i in range(SOCKETS)]), Counter())


def test_a_hundred_thousand_new_tenants_are_mostly_refused_and_cost_no_memory(api: Api) -> None:
    content = body()

    def post(number: int) -> bytes:
        name = f"{number:064}".encode()
        return b"POST /api/events HTTP/1.1\r\nHost: x\r\nX-Tenant-ID: %s\r\nContent-Length: %d\r\n\r\n%s" % (
            name,
            len(content),
            content,
        )

    started = time.monotonic()
    statuses = pipelined(api, post, TENANTS)
    allowed_tenants = 50 * (time.monotonic() - started + 2)

    assert set(statuses) == {202, 429} and statuses.total() == TENANTS
    assert statuses[202] <= allowed_tenants


def test_reads_by_a_hundred_thousand_tenants_cost_no_memory(api: Api) -> None:
    def read(number: int) -> bytes:
        path = "/api/sessions/S0" if number % 20 == 0 else f"/api/receipts?event_hash={secrets.token_hex(16)}"
        return f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Tenant-ID: {number:x>64}\r\n\r\n".encode()

    assert pipelined(api, read, TENANTS) == {404: TENANTS}


def test_idle_connections_of_one_address_do_not_lock_out_others(api: Api) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, CONNECTIONS + 1_000)), hard))
    with ExitStack() as stack:
        connections = [stack.enter_context(api.connect()) for _ in range(CONNECTIONS)]
        refused = [connection for connection in connections[ADDRESS_LIMIT:] if everything(connection).startswith(b"HTTP/1.1 503")]
        time.sleep(1)  # other clients are served meanwhile
        connections[0].sendall(GET)
        assert answers_in(one_answer(connections[0])) == [(200, {"status": "ok"})]
        with socket.create_connection(("127.0.0.1", api.port), timeout=10) as another:
            problem = assert_refused(everything(another), 503, "too-many-connections")

    assert len(refused) == CONNECTIONS - ADDRESS_LIMIT
    assert problem["value"] > problem["limit"] == ADDRESS_LIMIT
    wait_until(lambda: b"200 OK" in _health(api), "there is room again")
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _health(api: Api) -> bytes:
    with api.connect() as connection:
        connection.sendall(GET)
        return one_answer(connection)
