"""lease, release, requeue, group_progress, summaries: turns and progress."""

import time
from typing import Any

import pytest

from streams.keys import keys_of, leases_key, log_prefix, ready_key, usage_prefix
from tests.support.scripts import HOUR_MS, TENANT, Entry, Scripts

KEYS = keys_of(TENANT)
NEIGHBOURS = [name for name in (f"tenant-{i}" for i in range(2_000)) if keys_of(name).partition == KEYS.partition][:2]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def make_due(scripts: Scripts, tenant: str = TENANT, *, at_ms: int = 1_000) -> None:
    scripts.client.zadd(ready_key(KEYS.partition, "g"), {tenant: at_ms})


# -- lease -----------------------------------------------------------------------------------------------------------------


def test_nothing_due_is_nothing_leased(scripts: Scripts) -> None:
    assert scripts.lease() == []
    make_due(scripts, at_ms=now_ms() + HOUR_MS)
    assert scripts.lease() == []
    assert scripts.leases() == {}


def test_a_lease_says_how_far_log_and_group_are_and_holds_the_tenant(scripts: Scripts) -> None:
    scripts.filled(3)
    scripts.deliver("g", 2, acknowledged=1)
    make_due(scripts)
    began = now_ms()

    newest_bytes = len("event" + "b3" + "received_at_us" + "7" + "version" + "1")
    assert scripts.lease(lease_owner="me") == [[b"acme", b"1000", b"3", b"2", 1, newest_bytes]]
    assert scripts.leases() == {TENANT: "me"}
    assert began + HOUR_MS <= scripts.ready()[TENANT] <= now_ms() + HOUR_MS
    assert scripts.lease(lease_owner="other") == []


def test_a_lease_that_ran_out_is_taken_over(scripts: Scripts) -> None:
    scripts.filled(1)
    make_due(scripts)
    scripts.lease(lease_owner="dead", lease_ms=0)

    assert [row[0] for row in scripts.lease(lease_owner="me")] == [b"acme"]
    assert scripts.leases() == {TENANT: "me"}


def test_a_log_without_the_group_has_delivered_minus_one(scripts: Scripts) -> None:
    scripts.filled(2)
    scripts.deliver("other", 2)
    make_due(scripts)

    [[_, _, last, delivered, pending, _]] = scripts.lease()

    assert (last, delivered, pending) == (b"2", b"-1", 0)


def test_a_log_whose_entries_are_all_removed_has_a_last_position_and_no_newest_record(scripts: Scripts) -> None:
    scripts.filled(2)
    scripts.client.xdel(KEYS.log, "1-0", "2-0")
    make_due(scripts)

    assert scripts.lease() == [[b"acme", b"1000", b"2", b"-1", 0, 0]]


@pytest.mark.parametrize("kind", ["no key", "a string"])
def test_a_tenant_whose_log_is_no_stream_is_leased_with_no_records(scripts: Scripts, kind: str) -> None:
    if kind == "a string":
        scripts.client.set(KEYS.log, "in the way")
    make_due(scripts)

    assert scripts.lease() == [[b"acme", b"1000", b"0", b"-1", 0, 0]]


def test_leases_are_given_oldest_first_until_the_records_are_enough(scripts: Scripts) -> None:
    tenants = [TENANT, *NEIGHBOURS]
    for at_ms, tenant in enumerate(tenants, start=1_000):
        scripts.filled(2, tenant)
        make_due(scripts, tenant, at_ms=at_ms)

    assert [row[0].decode() for row in scripts.lease(records=3)] == tenants[:2]
    assert [row[0].decode() for row in scripts.lease(records=3)] == tenants[2:]


# -- release ---------------------------------------------------------------------------------------------------------------


def leased(scripts: Scripts, records: int = 3) -> None:
    scripts.filled(records)
    make_due(scripts)
    scripts.lease(lease_owner="me")


def test_a_tenant_that_is_level_leaves_the_queue(scripts: Scripts) -> None:
    leased(scripts)

    assert scripts.release(3) == 1
    assert (scripts.ready(), scripts.leases()) == ({}, {})


def test_a_tenant_that_lags_is_due_again_at_the_end_of_the_queue(scripts: Scripts) -> None:
    leased(scripts)
    began = now_ms()

    assert scripts.release(2) == 0
    assert began <= scripts.ready()[TENANT] <= now_ms()
    assert scripts.leases() == {}


def test_a_tenant_keeps_its_old_place_when_it_is_named(scripts: Scripts) -> None:
    leased(scripts)

    assert scripts.release(2, since_ms=1_000) == 0
    assert scripts.ready() == {TENANT: 1_000}


def test_a_tenant_that_is_put_off_is_due_after_the_delay_even_when_level(scripts: Scripts) -> None:
    leased(scripts)
    began = now_ms()

    assert scripts.release(3, delay_ms=HOUR_MS) == 0
    assert began + HOUR_MS <= scripts.ready()[TENANT] <= now_ms() + HOUR_MS


def test_only_the_lease_owner_ends_a_lease(scripts: Scripts) -> None:
    leased(scripts)
    due = scripts.ready()

    assert scripts.release(3, lease_owner="late") == 0
    assert (scripts.leases(), scripts.ready()) == ({TENANT: "me"}, due)


# -- requeue ---------------------------------------------------------------------------------------------------------------


def requeue(scripts: Scripts, *tenants: tuple[str, int]) -> int:
    arguments = [part for tenant, checkpoint in tenants for part in (keys_of(tenant).log, tenant, checkpoint)]
    return int(scripts.run("requeue", [KEYS.groups, ready_key(KEYS.partition, "g")], "g", *arguments))


def test_a_tenant_that_lags_or_has_deliveries_pending_is_made_due(scripts: Scripts) -> None:
    lagging, pending, level = TENANT, *NEIGHBOURS
    for tenant in (lagging, pending, level):
        scripts.filled(2, tenant)
    scripts.deliver("g", 2, acknowledged=1, tenant=pending)
    scripts.deliver("g", 2, acknowledged=2, tenant=level)

    assert requeue(scripts, (lagging, 1), (pending, 2), (level, 2)) == 2
    assert set(scripts.ready()) == {lagging, pending}
    assert scripts.client.smembers(KEYS.groups) == {b"g"}


def test_a_tenant_that_is_due_or_has_no_log_is_left_as_it_is(scripts: Scripts) -> None:
    scripts.filled(2)
    make_due(scripts)

    assert requeue(scripts, (TENANT, 0), (NEIGHBOURS[0], 0)) == 0
    assert scripts.ready() == {TENANT: 1_000}


def test_requeue_without_tenants_registers_the_group(scripts: Scripts) -> None:
    assert requeue(scripts) == 0
    assert scripts.client.smembers(KEYS.groups) == {b"g"}


# -- how far a log and its groups are --------------------------------------------------------------------------------------


def progress(scripts: Scripts) -> Any:
    return scripts.run("group_progress", [KEYS.log])


def test_the_progress_of_a_group_ends_before_its_first_pending_record(scripts: Scripts) -> None:
    assert progress(scripts) == [b"0"]
    scripts.filled(5)
    assert progress(scripts) == [b"5"]
    scripts.deliver("new", 0)
    scripts.deliver("all", 5, acknowledged=5)
    scripts.deliver("some", 4, acknowledged=2)

    last, *pairs = progress(scripts)

    assert last == b"5"
    assert dict(zip(pairs[0::2], pairs[1::2], strict=True)) == {b"new": b"0", b"all": b"5", b"some": b"2"}


def summaries(scripts: Scripts) -> list[list[Any]]:
    prefixes = log_prefix(KEYS.partition), usage_prefix(KEYS.partition)
    return sorted(scripts.run("summaries", [KEYS.tenants], *prefixes))


def test_a_summary_says_where_a_log_ends_what_it_holds_and_what_was_counted(scripts: Scripts) -> None:
    other = NEIGHBOURS[0]
    assert summaries(scripts) == []
    scripts.append(Entry("a"), Entry("b"), Entry("b"), Entry("b", "bb"), rejected=4)
    scripts.append(Entry("c"), Entry("d"), limits=(0, 0, 1))
    scripts.client.hset(KEYS.usage, "archived", 1)
    scripts.client.xdel(KEYS.log, "1-0")
    scripts.append(rejected=1, tenant=other)

    expected: list[list[Any]] = [
        [b"acme", b"3", 2, b"1", b"1", b"1", b"4", b"1"],
        [other.encode(), b"0", 0, None, None, None, b"1", None],
    ]
    assert summaries(scripts) == expected


def test_a_lease_leaves_the_leases_of_other_groups_alone(scripts: Scripts) -> None:
    scripts.filled(1)
    scripts.client.hset(leases_key(KEYS.partition, "h"), TENANT, "other")
    make_due(scripts)

    scripts.lease(group="g", lease_owner="me")

    assert (scripts.leases("g"), scripts.leases("h")) == ({TENANT: "me"}, {TENANT: "other"})
