"""A tenant appends exactly as much as its limits allow.

A refusal says when a resend would fit, and every refusal is counted.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams import Connection, Event, Limits, Log, event_identity, keys_of
from streams.append import TENANT_WAITING_LIMIT_BYTES, WAITING_LIMIT_BYTES
from streams.errors import LogBusy
from streams.limits import LIMIT_NAMES
from streams.log import Counts
from tests.support.clock import stopwatch
from tests.support.events import body, event, events
from tests.support.http import App, environment, opened
from tests.support.proxy import Proxy
from tests.support.servers import Server

pytestmark = pytest.mark.anyio

DAY_SECONDS = 86_400


async def counts_of(log: Log, tenant: str) -> Counts:
    [summary] = [summary for summary in await log.summaries() if summary.tenant == tenant]
    return summary.counts


def pass_time(server: Server, tenant: str, seconds: float) -> None:
    """Make the stored usage of a tenant this much older."""
    usage = keys_of(tenant).usage
    server.client.hset(usage, "at_ms", int(float(server.client.hget(usage, "at_ms"))) - int(seconds * 1000))


def many(count: int, begin: int = 0) -> list[Event]:
    return [event(event_id=f"e{number}") for number in range(begin, begin + count)]


async def statuses(log: Log, tenant: str, count: int, limits: Limits, begin: int = 0) -> list[str]:
    return [receipt.status for receipt in await log.append(tenant, many(count, begin), limits=limits)]


# -- rates -------------------------------------------------------------------------------------------------------------


async def test_a_batch_over_the_rate_is_accepted_as_far_as_it_fits_and_the_rest_after_its_wait(server: Server, log: Log) -> None:
    limits = Limits(events_per_second=10)

    receipts = await log.append("acme", many(14), limits=limits)
    pass_time(server, "acme", 0.4)
    again = await log.append("acme", many(14), limits=limits)

    assert [receipt.status for receipt in receipts] == ["accepted"] * 10 + ["limited"] * 4
    assert {(receipt.position, receipt.limit) for receipt in receipts[10:]} == {(None, "events_per_second")}
    assert {receipt.wait_seconds for receipt in receipts[10:]} <= {0.39, 0.4}
    assert [receipt.status for receipt in again] == ["duplicate"] * 10 + ["accepted"] * 4
    assert [receipt.position for receipt in again[10:]] == [11, 12, 13, 14]


async def test_the_bucket_holds_one_second_and_no_more(server: Server, log: Log) -> None:
    limits = Limits(events_per_second=10)
    await statuses(log, "acme", 1, limits)
    pass_time(server, "acme", 3_600)

    assert (await statuses(log, "acme", 30, limits, begin=1)).count("accepted") == 10


async def test_the_wait_covers_all_refused_events_and_at_most_a_full_bucket(log: Log) -> None:
    receipts = await log.append("acme", many(400), limits=Limits(events_per_second=100))

    assert receipts[-1].wait_seconds == 1.0


async def test_bytes_are_limited_and_an_event_over_the_rate_leaves_a_debt(server: Server, log: Log) -> None:
    limits = Limits(bytes_per_second=1_000)
    large = [event(event_id=f"large {number}", text="x" * 3_000) for number in range(2)]

    first, second = await log.append("acme", large, limits=limits)
    pass_time(server, "acme", 2.0)
    too_soon = await log.append("acme", large[1:], limits=limits)
    pass_time(server, "acme", 1.5)
    in_time = await log.append("acme", large[1:], limits=limits)

    assert (first.status, second.status, second.limit) == ("accepted", "limited", "bytes_per_second")
    assert 3.0 <= second.wait_seconds <= 3.2
    assert (too_soon[0].status, in_time[0].status) == ("limited", "accepted")


async def test_a_limit_that_is_removed_and_set_again_starts_without_debt(server: Server, log: Log) -> None:
    await log.append("acme", [event(text="x" * 9_000)], limits=Limits(bytes_per_second=1_000))
    await statuses(log, "acme", 5, Limits())
    await statuses(log, "acme", 5, Limits(events_per_day=100), begin=5)

    assert await statuses(log, "acme", 1, Limits(bytes_per_second=1_000), begin=10) == ["accepted"]


async def test_a_clock_that_is_set_back_changes_no_bucket(server: Server, log: Log) -> None:
    limits = Limits(events_per_second=5)
    await statuses(log, "acme", 3, limits)
    pass_time(server, "acme", -100)

    assert (await statuses(log, "acme", 5, limits, begin=3)).count("accepted") == 2


# -- the day -----------------------------------------------------------------------------------------------------------


async def test_a_daily_quota_holds_until_midnight(server: Server, log: Log) -> None:
    limits = Limits(events_per_day=3)

    receipts = await log.append("acme", many(5), limits=limits)
    now = datetime.now(UTC)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    pass_time(server, "acme", DAY_SECONDS)
    tomorrow = await statuses(log, "acme", 5, limits)

    assert [receipt.status for receipt in receipts] == ["accepted"] * 3 + ["limited"] * 2
    assert receipts[-1].limit == "events_per_day"
    assert receipts[-1].wait_seconds == pytest.approx((midnight - now).total_seconds(), abs=5)
    assert tomorrow == ["duplicate"] * 3 + ["accepted"] * 2


async def test_the_limit_with_the_longest_wait_is_named(log: Log) -> None:
    receipts = await log.append("acme", many(9), limits=Limits(events_per_second=4, bytes_per_second=1, events_per_day=1))

    assert [receipt.limit for receipt in receipts] == ["", *["events_per_day"] * 8]


# -- free of charge ----------------------------------------------------------------------------------------------------


async def test_duplicates_and_conflicts_cost_nothing(log: Log) -> None:
    limits = Limits(events_per_second=2, bytes_per_second=100_000, events_per_day=2)
    await statuses(log, "acme", 1, limits)
    for _ in range(50):
        assert await statuses(log, "acme", 1, limits) == ["duplicate"]
        assert (await log.append("acme", [event(event_id="e0", n=1)], limits=limits))[0].status == "conflict"

    assert await statuses(log, "acme", 3, limits, begin=1) == ["accepted", "limited", "limited"]


async def test_an_accepted_event_is_a_duplicate_even_while_its_tenant_is_over_the_limit(log: Log) -> None:
    limits = Limits(events_per_day=2)
    await statuses(log, "acme", 4, limits)

    assert await statuses(log, "acme", 4, limits) == ["duplicate", "duplicate", "limited", "limited"]


async def test_a_limited_event_leaves_no_deduplication_key(log: Log) -> None:
    await statuses(log, "acme", 2, Limits(events_per_day=1))

    assert await statuses(log, "acme", 2, Limits()) == ["duplicate", "accepted"]
    assert await log.last_position("acme") == 2


async def test_a_limit_is_shared_by_all_processes_and_holds_for_its_tenant_only(server: Server) -> None:
    limits = Limits(events_per_second=20)
    async with Log(Connection(server.url)) as one, Log(Connection(server.url)) as other:
        answers = await asyncio.gather(
            *(statuses(log, "acme", 15, limits, begin=begin) for begin, log in ((0, one), (100, other))),
            statuses(one, "globex", 15, limits),
        )

    assert 20 <= sum(answer.count("accepted") for answer in answers[:2]) <= 21  # a token is added every 50 ms
    assert answers[2] == ["accepted"] * 15


# -- counts ------------------------------------------------------------------------------------------------------------


async def test_each_refusal_is_counted_once(log: Log) -> None:
    limits = Limits(events_per_day=3)
    await log.append("acme", many(5), limits=limits, rejected=2)
    await log.append("acme", [*many(3), event(event_id="e0", n=1)], limits=limits)
    await log.append("acme", [], rejected=4)

    assert await counts_of(log, "acme") == Counts(duplicate=3, conflict=1, rejected=6, limited=2)
    assert await log.last_position("acme") == 3


async def test_a_tenant_with_only_rejected_events_is_listed(log: Log) -> None:
    assert await log.append("broken", [], rejected=3) == []

    [summary] = await log.summaries()
    assert (summary.tenant, summary.last, summary.held, summary.counts.rejected) == ("broken", 0, 0, 3)


async def test_a_rejection_beside_many_script_calls_is_counted_once(log: Log) -> None:
    await log.append("acme", events(1_200), rejected=1)

    assert (await counts_of(log, "acme")).rejected == 1


async def test_refusals_are_counted_and_answered_when_the_memory_is_full(own_server: Server) -> None:
    limits = Limits(events_per_day=2)
    async with Log(Connection(own_server.url)) as log:
        await statuses(log, "acme", 3, limits)
        own_server.client.config_set("maxmemory", 1_000_000)
        answers = await statuses(log, "acme", 3, limits)
        await log.append("acme", [], rejected=1)

        assert answers == ["duplicate", "duplicate", "limited"]
        assert await counts_of(log, "acme") == Counts(duplicate=2, rejected=1, limited=2)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    calls=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 20), st.floats(0, 3)), min_size=1, max_size=12),
    rate=st.integers(1, 12),
    quota=st.integers(0, 40),
)
async def test_exactly_as_much_is_accepted_as_the_limits_allow(
    server: Server, log: Log, calls: list[tuple[int, int, float]], rate: int, quota: int
) -> None:
    server.client.flushall()
    limits = Limits(events_per_second=rate, events_per_day=quota)
    began = time.monotonic()
    passed = 0.0
    accepted = sent = 0
    for begin, count, pause in calls:
        before = await log.last_position("acme")
        answers = await statuses(log, "acme", count, limits, begin=begin)
        sent += count
        accepted += answers.count("accepted")
        assert await log.last_position("acme") == before + answers.count("accepted")
        if accepted:
            passed += pause
            pass_time(server, "acme", pause)

    elapsed = passed + time.monotonic() - began
    assert accepted <= rate + elapsed * rate + 1
    assert not quota or accepted <= quota * (1 + int(elapsed // DAY_SECONDS + 1))
    counts = await counts_of(log, "acme")
    assert accepted + counts.duplicate + counts.conflict + counts.limited == sent


def test_the_limits_names_are_in_the_order_of_the_script() -> None:
    assert LIMIT_NAMES == ("events_per_second", "bytes_per_second", "events_per_day")


# -- at the ingest endpoint --------------------------------------------------------------------------------------------


@pytest.fixture
async def app(server: Server, tmp_path: Path) -> AsyncIterator[App]:
    async with opened(server, tmp_path, EVENTS_PER_DAY=3) as app:
        yield app


def members(count: int, begin: int = 0) -> list[dict[str, Any]]:
    return [json.loads(body(event_id=f"e{number}")) for number in range(begin, begin + count)]


async def test_an_event_over_the_limit_is_answered_429_with_retry_after(app: App) -> None:
    await app.post(members(3))

    answer = await app.post(members(1, begin=3)[0])

    event_hash, _ = event_identity("acme", event(event_id="e3"))
    assert answer.status_code == 429
    assert answer.json() == {
        "status": "limited", "event_hash": event_hash, "position": None, "reason": "events_per_day", "limit": 3,
    }  # fmt: skip
    seconds = int(answer.headers["retry-after"])
    assert 1 <= seconds <= DAY_SECONDS
    assert answer.headers["ratelimit-limit"] == "3"
    assert answer.headers["ratelimit-remaining"] == "0"
    assert int(answer.headers["ratelimit-reset"]) == seconds


@pytest.mark.parametrize(
    ("sent", "status", "receipts"),
    [
        (members(5), 207, ["accepted"] * 3 + ["limited"] * 2),
        ([*members(3), {}], 207, ["accepted"] * 3 + ["rejected"]),
        ([*members(3), *members(3)], 202, ["accepted"] * 3 + ["duplicate"] * 3),
        ([*members(3, begin=-3), *members(2)], 207, ["accepted"] * 3 + ["limited"] * 2),
    ],
    ids=range(4),
)
async def test_a_batch_is_accepted_as_far_as_it_fits(app: App, sent: list[Any], status: int, receipts: list[str]) -> None:
    answer = await app.post(sent)

    assert answer.status_code == status
    assert [receipt["status"] for receipt in answer.json()["receipts"]] == receipts
    assert ("retry-after" in answer.headers) == ("limited" in receipts)


async def test_a_batch_without_an_accepted_event_is_429_if_a_resend_may_succeed(app: App) -> None:
    await app.post(members(3))

    bodies: list[Any] = [members(2, begin=3), [*members(1, begin=3), {}], [{}], members(2)]
    answers = [await app.post(sent) for sent in bodies]

    assert [answer.status_code for answer in answers] == [429, 429, 422, 200]


async def test_a_tenants_own_limit_holds_for_it_alone_within_two_seconds(own_server: Server, tmp_path: Path) -> None:
    def tenant(*arguments: str) -> subprocess.CompletedProcess[str]:
        given = environment(DATA_DIR=tmp_path, COLUMNS="160", EVENTS_PER_DAY=5, EVENTS_PER_SECOND=1_000)
        run = [sys.executable, "-m", "api", "tenant", *arguments]
        return subprocess.run(run, cwd=tmp_path, env=given, capture_output=True, text=True, timeout=120)

    async with opened(own_server, tmp_path, EVENTS_PER_DAY=5, EVENTS_PER_SECOND=1_000) as app:
        command = await asyncio.to_thread(tenant, "set", "acme", "--events-per-day", "2", "--events-per-second", "none")
        await asyncio.sleep(2)
        acme, globex = await app.post(members(7)), await app.post(members(7), tenant="globex")
        shown = await asyncio.to_thread(tenant, "show")
        await asyncio.to_thread(tenant, "set", "acme", "--events-per-day", "default", "--events-per-second", "default")
        await asyncio.sleep(2)
        again = await app.post(members(7))

    assert command.returncode == 0, command.stderr
    assert [receipt["status"] for receipt in acme.json()["receipts"]].count("accepted") == 2
    assert [receipt["status"] for receipt in globex.json()["receipts"]].count("accepted") == 5
    assert [receipt["status"] for receipt in again.json()["receipts"]].count("accepted") == 3
    assert [line.split() for line in shown.stdout.splitlines() if "acme" in line] == [["acme", "none", "none", "2"]]
    assert [line.split() for line in shown.stdout.splitlines() if "others" in line] == [["(others)", "1,000", "none", "5"]]


@pytest.mark.parametrize(
    "arguments", [("set", "acme"), ("set", "acme", "--events-per-day", "-1"), ("set", "a/b", "--events-per-day", "1")]
)
def test_an_invalid_limit_is_refused_with_a_sentence(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    run = [sys.executable, "-m", "api", "tenant", *arguments]
    done = subprocess.run(run, cwd=tmp_path, env=environment(DATA_DIR=tmp_path), capture_output=True, text=True, timeout=120)

    assert done.returncode > 0 and "Traceback" not in done.stderr
    assert done.stderr.strip()


# -- a flood -----------------------------------------------------------------------------------------------------------


class Sent(Connection):
    """A connection that records which tenants' calls are sent together.

    It accepts everything.
    """

    def __init__(self) -> None:
        super().__init__("unix:///nowhere")
        self.flushes: list[list[str]] = []

    async def script_pipeline(self, name: str, calls: Any, *, budget_seconds: float | None = None) -> list[Any]:
        self.flushes.append([arguments[0] for _, arguments in calls])
        await asyncio.sleep(0)
        return [[1, b"1"] * (len(keys) - 5) + [0] for keys, _ in calls]


async def test_tenants_take_turns_in_what_goes_out() -> None:
    large = [event(event_id=f"large {number}", text="x" * 60_000) for number in range(200)]  # 12 MB, three flushes
    async with Log(Sent()) as log:
        flood = asyncio.create_task(log.append("flood", large))
        await asyncio.sleep(0)
        others = [asyncio.create_task(log.append(f"other-{number}", many(1))) for number in range(5)]
        await asyncio.gather(flood, *others)
        flushes = log.connection.flushes  # type: ignore[attr-defined]

    first = next(number for number, flush in enumerate(flushes) if "other-0" in flush)
    assert first <= 1 and len(flushes) >= 3
    assert set(flushes[first][:6]) == {"flood", *(f"other-{number}" for number in range(5))}


async def test_a_tenant_over_its_limit_waits_a_little_and_every_tenant_is_answered(log: Log) -> None:
    limits = Limits(events_per_second=400)
    slowest = 0.0

    async def other() -> None:
        nonlocal slowest
        for number in range(60):
            with stopwatch() as watch:
                [receipt] = await log.append("other", many(1, begin=number))
                slowest = max(slowest, watch.seconds)
            assert receipt.status == "accepted"
            await asyncio.sleep(0.005)

    async def flood(part: int) -> list[str]:
        answers = []
        for number in range(15):
            answers += await statuses(log, "flood", 1, limits, begin=part * 100 + number)
        return answers

    async with asyncio.timeout(60):
        answers, *_ = await asyncio.gather(asyncio.gather(*(flood(part) for part in range(64))), other())

    given = [status for some in answers for status in some]
    assert len(given) == 64 * 15 and set(given) == {"accepted", "limited"}
    assert given.count("accepted") >= 400
    assert slowest < 0.5
    assert log.appender.waiting_bytes == 0


async def test_one_tenant_fills_at_most_a_quarter_of_the_queue(server: Server) -> None:
    large = [event(event_id=f"large {number}", text="x" * 60_000) for number in range(90)]  # 5.4 MB
    async with Proxy(server.socket) as proxy, Log(Connection(proxy.url, budget_seconds=1.0)) as log:
        await log.append("warm", [event()])
        proxy.black_hole = True
        waiting = [asyncio.create_task(log.append("flood", large)) for _ in range(3)]
        await asyncio.sleep(0.05)
        for _ in range(3):
            waiting.append(asyncio.create_task(log.append("flood", large)))
        await asyncio.sleep(0.05)
        with pytest.raises(LogBusy) as busy:
            await log.append("flood", large)
        other = asyncio.create_task(log.append("other", large))
        await asyncio.sleep(0.05)

        assert not other.done()  # it was admitted, and waits for the server like all others
        assert busy.value.limit == TENANT_WAITING_LIMIT_BYTES
        assert log.appender.waiting_bytes < WAITING_LIMIT_BYTES / 2
        await asyncio.gather(*waiting, other, return_exceptions=True)
    assert log.appender.waiting_bytes == 0
