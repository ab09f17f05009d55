"""While the server is away or full, senders are answered in time."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from streams import keys_of
from tests.support.clock import stopwatch
from tests.support.events import body
from tests.support.http import Api, App, opened, process_of, running, wait_until
from tests.support.servers import Server

pytestmark = pytest.mark.anyio

BUDGET_SECONDS = 0.6


@pytest.fixture
async def app(own_server: Server, tmp_path: Path) -> AsyncIterator[App]:
    async with opened(own_server, tmp_path / "data", APPEND_TIMEOUT_SECONDS=BUDGET_SECONDS, READ_WAIT_TIMEOUT_SECONDS=0.3) as app:
        await app.post(body(session_id="before"))
        await app.project()
        yield app


def signalled(server: Server, number: signal.Signals) -> None:
    assert server.process is not None
    server.process.send_signal(number)


def assert_retryable(answer: httpx.Response, code: str) -> None:
    """A problem that says that to send the same again is safe and may help."""
    problem = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (503, 503, code), problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) >= 1
    assert problem["detail"]


async def timed(app: App, content: Any) -> tuple[httpx.Response, float]:
    """The answer to a post, and its seconds."""
    with stopwatch() as watch:
        return await app.post(content), watch.seconds


@pytest.mark.parametrize("how", ["killed", "paused"])
async def test_a_post_is_answered_503_within_the_budget_and_accepted_when_the_server_is_back(
    own_server: Server, app: App, how: str
) -> None:
    own_server.kill() if how == "killed" else signalled(own_server, signal.SIGSTOP)
    answer, seconds = await timed(app, body(session_id="meanwhile"))
    own_server.start() if how == "killed" else signalled(own_server, signal.SIGCONT)

    again = await app.post(body(session_id="meanwhile"))
    await app.project()

    assert_retryable(answer, "log-unavailable")
    assert seconds < BUDGET_SECONDS + 0.3
    assert again.status_code in ((202,) if how == "killed" else (200, 202))
    assert again.json()["position"] == 2
    assert [row["session_id"] for row in (await app.get("/api/events")).json()["events"]] == ["meanwhile", "before"]


async def test_posts_that_wait_for_one_another_are_all_answered_within_the_budget(own_server: Server, app: App) -> None:
    signalled(own_server, signal.SIGSTOP)
    posts = []
    for i in range(5):
        posts.append(asyncio.create_task(timed(app, body(session_id=f"S{i}"))))
        await asyncio.sleep(0.05)

    answers = await asyncio.gather(*posts)
    signalled(own_server, signal.SIGCONT)

    for answer, _ in answers:
        assert_retryable(answer, "log-unavailable")
    assert max(seconds for _, seconds in answers) < BUDGET_SECONDS + 0.3


async def test_reads_of_the_tables_go_on_without_the_server(own_server: Server, app: App) -> None:
    own_server.kill()

    answers = [await app.get(path) for path in ("/api/events", "/api/events?after=1", "/api/sessions/before", "/api/receipts/1")]

    assert [answer.status_code for answer in answers] == [200] * 4


async def test_what_only_the_log_knows_is_answered_503_without_it(own_server: Server, app: App) -> None:
    name = (await app.post(body())).json()["event_hash"]
    own_server.kill()

    for answer in (await app.get("/api/receipts/2"), await app.get("/api/receipts", event_hash=name)):
        assert_retryable(answer, "log-unavailable")


async def test_a_wrong_request_is_refused_without_the_server(own_server: Server, app: App) -> None:
    own_server.kill()

    answers = [await app.post(content) for content in (b"no json", b"[1", b"[]")]

    assert [answer.status_code for answer in answers] == [400, 400, 200]


async def test_an_event_is_rejected_only_when_that_can_be_counted(own_server: Server, app: App) -> None:
    own_server.kill()
    away = [await app.post(content) for content in (b"{}", b"[{}, 1]")]
    own_server.start()
    back = [await app.post(content) for content in (b"{}", b"[{}, 1]")]

    assert [answer.status_code for answer in away] == [503, 503]
    assert [answer.status_code for answer in back] == [422, 422]
    [summary] = await app.log.summaries()
    assert summary.counts.rejected == 3


async def test_a_server_whose_memory_is_full_is_answered_log_full_and_leaves_no_deduplication_key(
    own_server: Server, app: App
) -> None:
    content = b"[" + b",".join(body(session_id=f"S{i}", fill="x" * 500) for i in range(900)) + b"]"
    keys = own_server.client.dbsize()
    own_server.client.config_set("maxmemory", "100kb")

    refused, single = await app.post(content), await app.post(body(session_id="one"))
    new_keys = own_server.client.dbsize() - keys
    await app.project()
    own_server.client.config_set("maxmemory", "0")
    accepted = await app.post(content)

    assert_retryable(refused, "log-full")
    assert_retryable(single, "log-full")
    assert new_keys == 0
    assert accepted.status_code == 202
    assert await app.project() == 900


async def test_what_is_in_the_log_gets_into_the_tables_while_memory_is_full(own_server: Server, app: App) -> None:
    await app.post(body(session_id="queued"))
    own_server.client.config_set("maxmemory", "100kb")

    applied = await app.project()

    assert applied == 1
    assert (await app.get("/api/receipts/2")).json()["status"] == "projected"


@pytest.mark.parametrize("broken", ["not a stream", "at the last id there is"])
async def test_a_log_that_cannot_be_written_leaves_no_deduplication_key(own_server: Server, app: App, broken: str) -> None:
    log = keys_of("broken").log
    if broken == "not a stream":
        own_server.client.set(log, "")
    else:  # readable, so that only the append itself can fail
        own_server.client.xadd(log, {"event": ""}, id=f"{2**64 - 1}-0")

    refused = await app.post(body(), tenant="broken")
    dedup_keys = own_server.client.keys(f"{keys_of('broken').dedup}*")
    own_server.client.delete(log)
    accepted = await app.post(body(), tenant="broken")

    assert (refused.status_code, refused.json()["code"]) == (500, "log-refused")
    assert dedup_keys == []
    assert (accepted.status_code, accepted.json()["position"]) == (202, 1)


async def test_one_tenants_broken_log_does_not_touch_the_posts_that_go_out_with_it(own_server: Server, app: App) -> None:
    own_server.client.set(keys_of("broken").log, "not a stream")
    tenants = [f"t{i}" for i in range(9)]

    answers = await asyncio.gather(*(app.post(body(), tenant=tenant) for tenant in ("broken", *tenants)))

    assert [answer.status_code for answer in answers[1:]] == [202] * 9
    assert answers[0].status_code == 500


def posted(api: Api) -> httpx.Response:
    return httpx.post(f"{api.url}/api/events", content=body(), headers={"X-Tenant-ID": "acme"})


def test_a_process_started_before_its_server_serves_once_it_is_there(tmp_path: Path) -> None:
    server = Server("valkey", tmp_path / "server")
    try:
        with running(server, tmp_path / "api", projector=True, APPEND_TIMEOUT_SECONDS=BUDGET_SECONDS) as api:
            before = posted(api)
            greeted_before = "Try it" in api.said
            server.start()
            after = posted(api)
            read = httpx.get(f"{api.url}/api/events?after=1", headers={"X-Tenant-ID": "acme"}, timeout=10)
            server.restart()
            resent = posted(api)

            assert_retryable(before, "log-unavailable")
            assert not greeted_before
            assert after.status_code == 202
            assert [row["position"] for row in read.json()["events"]] == [1]
            assert resent.status_code == 200
            wait_until(lambda: "Try it" in api.said, "the API says what to try")
            assert "Traceback" not in api.said
    finally:
        server.stop()


def test_a_projector_outlives_full_memory_and_goes_on_without_a_restart(tmp_path: Path) -> None:
    server = Server("valkey", tmp_path / "server").start()
    try:
        with running(server, tmp_path / "api", APPEND_TIMEOUT_SECONDS=BUDGET_SECONDS) as api:
            posted(api)
            server.client.config_set("maxmemory", "100kb")
            settings = {"REDIS_URL": server.url, "DATA_DIR": tmp_path / "api"}
            with process_of(("-m", "projector", "run"), tmp_path / "projector", "out", **settings) as projector:
                read = httpx.get(f"{api.url}/api/events?after=1", headers={"X-Tenant-ID": "acme"}, timeout=10)

                assert projector.poll() is None, (tmp_path / "projector/out").read_text()
                assert [row["position"] for row in read.json()["events"]] == [1]
    finally:
        server.stop()
