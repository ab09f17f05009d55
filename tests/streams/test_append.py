"""An append gives each event one position and is safe to repeat."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import streams.append
from projector.live.worker import Worker
from projector.rebuild.rebuild import rebuild
from projector.rebuild.verify import verify
from projector.store.sqlite import SqliteStore
from streams import Connection, Event, Limits, Log, digest_of, event_identity, keys_of
from streams.errors import BadTenant, LogBusy, LogFull, LogRefused, LogUnavailable
from tests.support.clock import stopwatch
from tests.support.events import event, events, numbered
from tests.support.logs import position_of
from tests.support.proxy import Proxy, until
from tests.support.servers import Server

pytestmark = pytest.mark.anyio

BUDGET_SECONDS = 0.4


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    async with Proxy(server.socket) as proxy:
        yield proxy


@pytest.fixture
async def proxied_log(proxy: Proxy) -> AsyncIterator[Log]:
    """The log as seen through the proxy, with a short budget."""
    async with Log(Connection(proxy.url, budget_seconds=BUDGET_SECONDS)) as log:
        await log.append("warm", [event()])  # the server knows the script after this
        yield log


@pytest.fixture
async def own_log(own_server: Server) -> AsyncIterator[Log]:
    async with Log(Connection(own_server.url)) as log:
        yield log


def dedup_keys_of(server: Server) -> list[bytes]:
    return sorted(server.client.keys("*:dedup:*"))


def script_calls(server: Server) -> int:
    return int(server.client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])


async def bodies_of(log: Log, tenant: str) -> list[bytes]:
    return [record.body async for page in log.read(tenant, 0) for record in page]


async def assert_raises(appending: Awaitable[object], error: type[Exception]) -> None:
    with pytest.raises(error):
        await appending


# -- receipts ------------------------------------------------------------------------------------------------------------


async def test_events_get_the_next_positions_in_order(log: Log) -> None:
    sent = events(5)

    receipts = await log.append("acme", sent[:3]) + await log.append("acme", sent[3:])

    assert [(receipt.status, receipt.position) for receipt in receipts] == [("accepted", i) for i in range(1, 6)]
    assert [receipt.event_hash for receipt in receipts] == [event_identity("acme", sent_event)[0] for sent_event in sent]
    assert await bodies_of(log, "acme") == [sent_event.body for sent_event in sent]


async def test_a_duplicate_is_answered_with_the_first_position(log: Log) -> None:
    first, second = events(2)
    await log.append("acme", [first, second])

    receipts = await log.append("acme", [second, first, second])

    assert [(receipt.status, receipt.position) for receipt in receipts] == [("duplicate", p) for p in (2, 1, 2)]
    assert len(await bodies_of(log, "acme")) == 2


async def test_an_event_twice_in_one_append_is_written_once(log: Log) -> None:
    receipts = await log.append("acme", [event(), event(), event()])

    assert [(receipt.status, receipt.position) for receipt in receipts] == [
        ("accepted", 1),
        ("duplicate", 1),
        ("duplicate", 1),
    ]
    assert len(await bodies_of(log, "acme")) == 1


async def test_the_same_identity_with_other_content_is_a_conflict_and_not_written(log: Log) -> None:
    await log.append("acme", [event(n=0, session_id="S0"), event(page="/a")])

    receipts = await log.append("acme", [event(page="/b"), event(page="/a")])

    assert [(receipt.status, receipt.position) for receipt in receipts] == [("conflict", 2), ("duplicate", 2)]
    assert len(await bodies_of(log, "acme")) == 2


async def test_an_event_id_alone_is_the_identity_of_its_event(log: Log) -> None:
    first = event(event_id="e1", session_id="S1")

    receipts = await log.append(
        "acme", [first, event(event_id="e2", session_id="S1"), event(event_id="e1", session_id="S2"), first]
    )

    assert [receipt.status for receipt in receipts] == ["accepted", "accepted", "conflict", "duplicate"]


async def test_tenants_share_no_identities(log: Log) -> None:
    of_acme = await log.append("acme", [event()])
    of_acme2 = await log.append("acme2", [event()])

    assert [of_acme[0].status, of_acme2[0].status] == ["accepted", "accepted"]


async def test_an_append_of_no_events_has_no_receipts(log: Log, server: Server) -> None:
    assert await log.append("acme", []) == []
    assert server.client.keys("*") == []


async def test_a_bad_tenant_is_refused_before_anything_is_sent(log: Log, server: Server) -> None:
    with pytest.raises(BadTenant):
        await log.append("}:log:acme", [event()])

    assert server.client.keys("*") == []


async def test_a_dedup_key_lasts_for_the_dedup_window(server: Server) -> None:
    async with Log(Connection(server.url), dedup_window_seconds=90.0) as log:
        await log.append("acme", [event()])

    [dedup_key] = dedup_keys_of(server)
    assert 85_000 < server.client.pttl(dedup_key) <= 90_000


# -- one hash, several identities ----------------------------------------------------------------------------------------

SAME_HASH = [
    event(session_id="S1", event_type="2x"),
    event(session_id="S12", event_type="x"),
    event(session_id="S", event_type="12x"),
    event(event_id="S12x2026-01-01T10:00:00Z"),
]
run_number = itertools.count()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(SAME_HASH), st.booleans()), min_size=2, max_size=8))
async def test_identities_with_one_hash_are_separate_events_in_any_order_even_when_dedup_keys_are_lost(
    server: Server, log: Log, store: SqliteStore, worker: Worker, sent: list[tuple[Event, bool]]
) -> None:
    tenant = f"hash-{next(run_number)}"
    first_positions: dict[bytes, int] = {}
    accepted = 0
    for sent_event, lose_keys in sent:
        [receipt] = await log.append(tenant, [sent_event])
        if receipt.status == "accepted":
            accepted += 1
            first_positions.setdefault(sent_event.body, accepted)
        assert receipt.status == "accepted" or position_of(receipt) >= first_positions[sent_event.body]
        if lose_keys:
            server.client.delete(*dedup_keys_of(server))

    await worker.run_to_end()

    with store.reading() as connection:
        rows = connection.execute("SELECT position, session_id, event_type, event_id FROM events WHERE tenant_id = ?", (tenant,))
        assert sorted(rows) == sorted(
            (first_positions[sent_event.body], sent_event.session_id, sent_event.event_type, sent_event.event_id)
            for sent_event in _distinct(sent)
        )
    assert store.tables().checkpoint(tenant).position == accepted


def _distinct(sent: list[tuple[Event, bool]]) -> list[Event]:
    return list({sent_event.body: sent_event for sent_event, _ in sent}.values())


async def test_each_identity_with_one_hash_keeps_its_own_first_position(log: Log) -> None:
    await log.append("acme", SAME_HASH[:3])

    receipts = await log.append("acme", [SAME_HASH[2], SAME_HASH[0], SAME_HASH[1], event(session_id="S12", event_type="x", n=1)])

    assert [(receipt.status, receipt.position) for receipt in receipts] == [
        ("duplicate", 3),
        ("duplicate", 1),
        ("duplicate", 2),
        ("conflict", 2),
    ]
    assert await log.positions_of("acme", receipts[0].event_hash) == [1, 2, 3]


# -- errors of the server ------------------------------------------------------------------------------------------------


async def test_an_event_that_was_not_written_has_no_dedup_key(server: Server, log: Log) -> None:
    server.client.set(keys_of("acme").log, "in the way")

    with pytest.raises(LogRefused):
        await log.append("acme", [event()])
    dedup_keys = dedup_keys_of(server)
    server.client.delete(keys_of("acme").log)
    [receipt] = await log.append("acme", [event()])

    assert dedup_keys == []
    assert (receipt.status, receipt.position) == ("accepted", 1)


async def test_an_event_that_fails_inside_the_script_has_no_dedup_key(server: Server, log: Log) -> None:
    server.client.xadd(keys_of("acme").log, {"by": "hand"}, id=f"{2**64 - 1}-{2**64 - 1}")  # no id can follow this one

    with pytest.raises(LogRefused):
        await log.append("acme", [event()])

    assert dedup_keys_of(server) == []


async def test_of_ten_tenants_in_one_pipeline_only_the_broken_tenant_fails(server: Server, log: Log) -> None:
    server.client.set(keys_of("tenant-4").log, "in the way")

    answers = await asyncio.gather(*(log.append(f"tenant-{i}", events(3)) for i in range(10)), return_exceptions=True)

    assert [i for i, answer in enumerate(answers) if isinstance(answer, LogRefused)] == [4]
    good = [answer for i, answer in enumerate(answers) if i != 4]
    assert [[receipt.position for receipt in answer] for answer in good if isinstance(answer, list)] == [[1, 2, 3]] * 9


@pytest.mark.parametrize("lose", ["restart", "flush"])
async def test_a_server_that_lost_the_script_writes_each_event_once(own_server: Server, own_log: Log, lose: str) -> None:
    await own_log.append("acme", [event(n=0, session_id="S0")])
    if lose == "restart":
        own_server.restart()
    else:
        own_server.client.script_flush()

    answers = await asyncio.gather(*(own_log.append(tenant, [event()]) for tenant in ("acme", "globex", "initech")))

    assert [answer[0].status for answer in answers] == ["accepted"] * 3
    assert [await own_log.last_position(tenant) for tenant in ("acme", "globex", "initech")] == [2, 1, 1]


async def test_only_script_calls_that_did_not_run_are_repeated(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Log(Connection(server.url)) as log:
        await log.append("warm", [event()])
        pipeline, sent = log.connection.pipeline, []

        async def unknown_script_once(commands: Sequence[Any], **options: Any) -> list[Any]:
            sent.append(len(commands))
            if len(sent) == 1:
                commands = [command if i != 1 else ("EVALSHA", "0" * 40, *command[2:]) for i, command in enumerate(commands)]
            return await pipeline(commands, **options)

        monkeypatch.setattr(log.connection, "pipeline", unknown_script_once)
        answers = await asyncio.gather(*(log.append(f"tenant-{i}", [event()]) for i in range(3)))

    assert sent == [3, 1]
    assert [answer[0].status for answer in answers] == ["accepted"] * 3


async def test_a_full_server_writes_no_part_of_an_append_and_accepts_again_when_it_has_room(
    own_server: Server, own_log: Log
) -> None:
    await own_log.append("acme", events(50))
    before = sorted(own_server.client.keys())
    own_server.client.config_set("maxmemory", 1_000_000)
    assert own_server.client.info("memory")["used_memory"] > 1_000_000, "the server should be over its limit"

    await assert_raises(own_log.append("acme", [event(n=-1, session_id="new"), *events(50)]), LogFull)
    await assert_raises(own_log.append("globex", events(5)), LogFull)
    duplicates = await own_log.append("acme", events(50))
    while_full = sorted(own_server.client.keys())
    own_server.client.config_set("maxmemory", 0)
    after = await own_log.append("acme", [event(n=-1, session_id="new")])

    assert while_full == sorted([*before, keys_of("acme").usage.encode()])
    assert {receipt.status for receipt in duplicates} == {"duplicate"}
    assert (after[0].status, after[0].position) == ("accepted", 51)


async def test_a_dedup_key_that_expired_early_costs_a_record_but_adds_no_row(
    server: Server, log: Log, store: SqliteStore, worker: Worker
) -> None:
    await log.append("acme", [event(), *events(3)])
    await worker.run_to_end()
    server.client.delete(*dedup_keys_of(server))

    [receipt] = await log.append("acme", [event()])
    await worker.run_to_end()

    assert (receipt.status, receipt.position) == ("accepted", 5)
    assert store.tables().checkpoint("acme").late_duplicates == 1
    assert [difference async for difference in verify(log, store)] == []
    await rebuild(log, store)
    assert [row["position"] for row in store.tables().rows("events", "acme")] == [1, 2, 3, 4]
    assert store.tables().checkpoint("acme").late_duplicates == 1


# -- lost replies -------------------------------------------------------------------------------------------------------


async def test_a_lost_reply_costs_a_resend_and_never_an_event(proxy: Proxy, proxied_log: Log) -> None:
    proxy.swallow_reply()

    with stopwatch() as watch:
        with pytest.raises(LogUnavailable):
            await proxied_log.append("acme", [event()])
        waited, wall_seconds = watch.seconds, watch.wall_seconds
    written = len(await bodies_of(proxied_log, "acme"))
    [receipt] = await proxied_log.append("acme", [event()])

    assert wall_seconds > BUDGET_SECONDS * 0.9
    assert waited < BUDGET_SECONDS + 0.3
    assert written == 1
    assert (receipt.status, receipt.position) == ("duplicate", 1)
    assert len(await bodies_of(proxied_log, "acme")) == 1


async def test_an_append_is_not_repeated_after_its_connection_was_cut(proxy: Proxy, proxied_log: Log) -> None:
    proxy.black_hole = True
    appending = asyncio.create_task(proxied_log.append("acme", events(3)))
    await until(lambda: proxy.swallowed)
    proxy.black_hole = False
    await proxy.cut()

    with pytest.raises(LogUnavailable):
        await appending
    receipts = await proxied_log.append("acme", events(3))

    assert [(receipt.status, receipt.position) for receipt in receipts] == [("duplicate", p) for p in (1, 2, 3)]


async def test_an_append_to_a_server_that_is_down_fails_within_the_time_budget(own_server: Server) -> None:
    async with Log(Connection(own_server.url, budget_seconds=BUDGET_SECONDS)) as log:
        await log.append("acme", [event()])
        own_server.kill()

        with stopwatch() as watch:
            await assert_raises(log.append("acme", [event(session_id="S2")]), LogUnavailable)

            assert watch.seconds < BUDGET_SECONDS + 0.3


async def test_an_append_succeeds_when_the_server_returns_within_the_time_budget(own_server: Server, own_log: Log) -> None:
    await own_log.append("acme", [event()])
    own_server.kill()

    appending = asyncio.create_task(own_log.append("acme", [event(session_id="S2")]))
    await asyncio.sleep(0)
    own_server.start()

    assert (await appending)[0].position == 2


# -- concurrent callers --------------------------------------------------------------------------------------------------


async def test_two_hundred_concurrent_appends_leave_no_gap_and_get_correct_receipts(log: Log) -> None:
    dice = random.Random(7)
    sent = [(f"tenant-{dice.randrange(7)}", [event(session_id=f"S{dice.randrange(300)}") for _ in range(3)]) for _ in range(200)]

    answers = await asyncio.gather(*(log.append(tenant, batch) for tenant, batch in sent))

    stored = {tenant: await bodies_of(log, tenant) for tenant in {tenant for tenant, _ in sent}}
    for (tenant, batch), receipts in zip(sent, answers, strict=True):
        for sent_event, receipt in zip(batch, receipts, strict=True):
            assert stored[tenant][position_of(receipt) - 1] == sent_event.body
            assert receipt.event_hash == event_identity(tenant, sent_event)[0]
    accepted = [
        (tenant, position_of(r)) for (tenant, _), rs in zip(sent, answers, strict=True) for r in rs if r.status == "accepted"
    ]
    assert sorted(accepted) == sorted((tenant, i) for tenant, bodies in stored.items() for i in range(1, len(bodies) + 1))
    assert all(len(set(bodies)) == len(bodies) for bodies in stored.values())


async def test_waiting_appends_are_sent_together_with_one_script_call_per_tenant(
    server: Server, proxy: Proxy, proxied_log: Log
) -> None:
    proxy.delay_seconds = 0.05
    server.client.config_resetstat()
    first = asyncio.create_task(proxied_log.append("acme", [event(session_id="first")]))
    await until(lambda: script_calls(server))

    waiting = [proxied_log.append("acme" if i % 2 else "globex", [event(session_id=f"S{i}")]) for i in range(100)]
    answers = await asyncio.gather(first, *waiting)

    assert script_calls(server) == 3
    assert sorted(position_of(receipts[0]) for receipts in answers[1::2]) == list(range(1, 51))
    assert sorted(position_of(receipts[0]) for receipts in answers[0::2]) == list(range(1, 52))


async def test_an_append_of_sixty_megabytes_is_sent_in_many_script_calls(server: Server, log: Log) -> None:
    filler = "x" * (64 * 1024 - 120)
    sent = [event(session_id=f"S{i}", filler=filler) for i in range(1_000)]
    server.client.config_resetstat()

    receipts = await log.append("acme", sent)

    assert [receipt.position for receipt in receipts] == list(range(1, 1_001))
    assert [receipt.event_hash for receipt in receipts] == [event_identity("acme", sent_event)[0] for sent_event in sent]
    assert script_calls(server) >= 250
    for position in (1, 5, 250, 999, 1_000):
        record = await log.find("acme", position)
        assert record is not None and record.body == sent[position - 1].body


async def test_many_small_events_of_one_append_are_sent_in_bounded_script_calls(server: Server, log: Log) -> None:
    await log.append("warm", [event()])
    server.client.config_resetstat()

    receipts = await log.append("acme", events(1_200))

    assert [receipt.position for receipt in receipts] == list(range(1, 1_201))
    assert script_calls(server) >= 3


async def test_appends_beyond_the_waiting_limit_are_refused_and_the_others_continue(
    proxy: Proxy, proxied_log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams.append, "WAITING_LIMIT_BYTES", 2_000)
    proxy.delay_seconds = 0.1
    first = asyncio.create_task(proxied_log.append("acme", [event(session_id="first")]))
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(proxied_log.append("acme", [event(session_id=f"S{i}")])) for i in range(20)]

    answers = await asyncio.gather(first, *waiting, return_exceptions=True)
    proxy.delay_seconds = 0.0
    after = await proxied_log.append("acme", [event(session_id="after")])

    busy = [answer for answer in answers if isinstance(answer, LogBusy)]
    accepted = [answer for answer in answers if isinstance(answer, list)]
    assert busy and len(busy) + len(accepted) == 21
    assert (busy[0].limit, busy[0].value > 2_000) == (2_000, True)
    assert [receipts[0].position for receipts in accepted] == list(range(1, len(accepted) + 1))
    assert after[0].position == len(accepted) + 1


async def test_an_append_beyond_the_waiting_limit_leaves_no_trace(
    server: Server, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams.append, "WAITING_LIMIT_BYTES", 200_000)

    await assert_raises(log.append("acme", events(1_000)), LogBusy)
    [receipt] = await log.append("acme", [event(session_id="after")])

    assert receipt.position == 1
    assert await log.last_position("acme") == 1


async def test_a_cancelled_append_does_not_disturb_other_appends(server: Server, proxy: Proxy, proxied_log: Log) -> None:
    proxy.delay_seconds = 0.02
    sent = [event(session_id=f"S{i}", n=i) for i in range(60)]
    tasks = []
    for i, sent_event in enumerate(sent):
        tasks.append(asyncio.create_task(proxied_log.append(f"tenant-{i % 3}", [sent_event])))
        if i % 3 == 0:
            await asyncio.sleep(0.005)
            tasks[i].cancel()

    answers = await asyncio.gather(*tasks, return_exceptions=True)

    assert sum(isinstance(answer, asyncio.CancelledError) for answer in answers) >= 10
    for i, answer in enumerate(answers):
        if isinstance(answer, asyncio.CancelledError):
            continue
        assert isinstance(answer, list), answer
        record = await proxied_log.find(f"tenant-{i % 3}", position_of(answer[0]))
        assert record is not None and digest_of(record.body) == digest_of(sent[i].body)


async def test_cancelled_callers_leave_no_reply_for_other_callers(proxy: Proxy) -> None:
    async with Connection(proxy.url, budget_seconds=2.0) as connection:
        await connection.call("PING")
        proxy.delay_seconds = 0.01

        async def echo(word: str) -> None:
            replies = await connection.pipeline([("ECHO", f"{word}-{i}") for i in range(3)])
            assert replies == [f"{word}-{i}".encode() for i in range(3)]

        wrong = 0
        for number in range(20):
            leaving = asyncio.create_task(echo(f"leaving-{number}"))
            staying = asyncio.create_task(echo(f"staying-{number}"))
            await asyncio.sleep(0.003 * (number % 8))
            leaving.cancel()
            answers = await asyncio.gather(leaving, staying, echo(f"next-{number}"), return_exceptions=True)
            wrong += sum(isinstance(answer, AssertionError) for answer in answers)

        assert wrong == 0
        assert await connection.call("ECHO", "last") == b"last"


async def test_a_call_that_timed_out_leaves_no_reply_for_the_next_call(proxy: Proxy) -> None:
    async with Connection(proxy.url, budget_seconds=0.1) as connection:
        await connection.call("PING")
        proxy.delay_seconds = 0.15
        await assert_raises(connection.call("ECHO", "late"), LogUnavailable)
        proxy.delay_seconds = 0.0

        assert [await connection.call("ECHO", f"next-{i}") for i in range(5)] == [f"next-{i}".encode() for i in range(5)]


async def test_a_log_sends_waiting_appends_before_it_closes(server: Server) -> None:
    async with Log(Connection(server.url)) as log:
        appending = [asyncio.create_task(log.append("acme", [event(session_id=f"S{i}")])) for i in range(5)]
        await asyncio.sleep(0)

    assert sorted([position_of((await task)[0]) for task in appending]) == [1, 2, 3, 4, 5]


# -- appends that are never lost track of --------------------------------------------------------------------------------


async def test_requests_with_only_rejected_events_are_answered_while_their_tenant_is_throttled(log: Log) -> None:
    limits = Limits(events_per_second=1)
    await log.append("flood", numbered(0, 5), limits=limits)  # four are limited, so what follows is throttled

    async with asyncio.timeout(10):
        receipts = await asyncio.gather(
            *(log.append("flood", [], limits=limits, rejected=1) for _ in range(41)), log.append("other", [event()])
        )

    assert receipts[:-1] == [[]] * 41 and receipts[-1][0].status == "accepted"
    assert log.appender.waiting_bytes == 0


async def test_a_replica_is_unavailable_and_the_same_append_works_at_a_primary(own_server: Server, own_log: Log) -> None:
    await own_log.append("acme", [event(n=1)])
    own_server.client.execute_command("REPLICAOF", "127.0.0.1", "1")

    with pytest.raises(LogUnavailable, match="replica"):
        await own_log.append("acme", [event(n=2)])

    own_server.client.execute_command("REPLICAOF", "NO", "ONE")
    assert [receipt.status for receipt in await own_log.append("acme", [event(n=2, session_id="S2")])] == ["accepted"]
