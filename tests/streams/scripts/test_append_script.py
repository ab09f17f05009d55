"""append.lua: an event is accepted, duplicate, conflict or limited."""

import time
from typing import Any

import pytest
from redis.exceptions import ResponseError

from streams.keys import READY_CHANNEL, keys_of
from tests.support.scripts import TENANT, WINDOW_MS, Entry, Scripts

ACCEPTED, DUPLICATE, CONFLICT, LIMITED = 1, 2, 3, 4
PER_SECOND, BYTES_PER_SECOND, PER_DAY = 1, 2, 3
KEYS = keys_of(TENANT)


def test_a_new_event_is_accepted_at_the_next_position(scripts: Scripts) -> None:
    first = scripts.append(Entry("one", "aa", "4.9", "b1"))
    second = scripts.append(Entry("two", "bb", "4.9", "b2"), Entry("three", "cc", "4.9", "b3"))

    assert first == [ACCEPTED, b"1", 0]
    assert second == [ACCEPTED, b"2", ACCEPTED, b"3", 0]
    assert scripts.entries() == [("1-0", "b1", "1"), ("2-0", "b2", "1"), ("3-0", "b3", "1")]
    assert scripts.client.xrange(KEYS.log)[0][1][b"received_at_us"] == b"7"
    assert (scripts.dedup("one"), scripts.dedup("three")) == ("1/aa/4.9", "3/cc/4.9")
    assert 0 < scripts.client.pttl(KEYS.dedup + Entry("one").event_hash) <= WINDOW_MS
    assert scripts.client.smembers(KEYS.tenants) == {TENANT.encode()}
    assert scripts.usage() == {}


def test_the_same_event_again_is_a_duplicate_with_the_position_of_the_first(scripts: Scripts) -> None:
    scripts.append(Entry("one"), Entry("two"))

    assert scripts.append(Entry("two"), Entry("one"), Entry("three"), Entry("three")) == [
        *(DUPLICATE, b"2", DUPLICATE, b"1", ACCEPTED, b"3", DUPLICATE, b"3"),
        0,
    ]
    assert len(scripts.entries()) == 3
    assert scripts.usage() == {"duplicate": "3"}


def test_the_same_identity_with_other_content_is_a_conflict(scripts: Scripts) -> None:
    scripts.append(Entry("one", "aa"))

    assert scripts.append(Entry("one", "bb")) == [CONFLICT, b"1", 0]
    assert len(scripts.entries()) == 1
    assert scripts.dedup("one") == "1/aa/4.9"
    assert scripts.usage() == {"conflict": "1"}


def test_two_hash_parts_under_one_key_are_two_events(scripts: Scripts) -> None:
    one, other = Entry("same", "aa", "4.9"), Entry("same", "bb", "5.8")

    assert scripts.append(one) == [ACCEPTED, b"1", 0]
    assert scripts.append(other) == [ACCEPTED, b"2", 0]
    assert scripts.dedup("same") == "1/aa/4.9 2/bb/5.8"
    assert scripts.append(other, one) == [DUPLICATE, b"2", DUPLICATE, b"1", 0]
    assert scripts.append(Entry("same", "aa", "5.8")) == [CONFLICT, b"2", 0]


def test_a_dead_letter_is_a_record_of_its_own_version(scripts: Scripts) -> None:
    assert scripts.append(Entry("letter", "aa", "dead_letter", "no event"), Entry("event")) == [ACCEPTED, b"1", ACCEPTED, b"2", 0]
    assert scripts.entries() == [("1-0", "no event", "3"), ("2-0", "{}", "1")]
    assert scripts.append(Entry("letter", "aa", "dead_letter", "no event")) == [DUPLICATE, b"1", 0]


def test_a_deleted_tenant_gets_no_log(scripts: Scripts) -> None:
    scripts.client.sadd(KEYS.deleted, KEYS.digest)

    with pytest.raises(ResponseError, match="DELETED"):
        scripts.append(Entry("one"), rejected=3)

    assert scripts.client.keys("*") == [KEYS.deleted.encode()]


def test_a_suppressed_identity_is_a_duplicate_and_never_written_again(scripts: Scripts) -> None:
    entry, other_parts = Entry("erased", "aa", "4.9"), Entry("erased", "aa", "5.8")
    salted = f"sha1 of salt{entry.event_hash}4.9"
    scripts.client.hset(KEYS.suppressed, mapping={"salt": "salt", salted: "17"})

    assert scripts.append(entry) == [DUPLICATE, b"17", 0]
    assert scripts.append(Entry("erased", "bb", "4.9")) == [DUPLICATE, b"17", 0]
    assert scripts.append(other_parts) == [ACCEPTED, b"1", 0]


def test_the_log_is_what_counts_positions(scripts: Scripts) -> None:
    scripts.append(Entry("one"), Entry("two"))
    scripts.client.xdel(KEYS.log, "2-0")
    scripts.client.delete(KEYS.usage, KEYS.tenants)

    assert scripts.append(Entry("three")) == [ACCEPTED, b"3", 0]


# -- limits --------------------------------------------------------------------------------------------------------------


def test_events_over_the_rate_are_limited_until_they_fit(scripts: Scripts) -> None:
    reply = scripts.append(*map(Entry, "abcd"), limits=(2, 0, 0))

    assert reply == [ACCEPTED, b"1", ACCEPTED, b"2", LIMITED, PER_SECOND, LIMITED, PER_SECOND, 1_000]
    assert len(scripts.entries()) == 2
    assert scripts.dedup("c") is None
    assert scripts.usage() | {"at_ms": ""} == {
        "limited": "2",
        "events_left": "0.000",
        "bytes_left": "",
        "at_ms": "",
        "today": "2",
    }


def test_the_bucket_of_events_fills_with_time(scripts: Scripts) -> None:
    scripts.append(Entry("a"), Entry("b"), limits=(2, 0, 0))
    scripts.client.hincrby(KEYS.usage, "at_ms", -600)  # 1.2 events

    assert scripts.append(Entry("c"), Entry("d"), limits=(2, 0, 0))[:4] == [ACCEPTED, b"3", LIMITED, PER_SECOND]


def test_the_bucket_of_events_holds_no_more_than_a_second(scripts: Scripts) -> None:
    scripts.append(Entry("a"), limits=(2, 0, 0))
    scripts.client.hincrby(KEYS.usage, "at_ms", -60_000)

    assert scripts.append(*map(Entry, "bcd"), limits=(2, 0, 0))[0::2] == [ACCEPTED, ACCEPTED, LIMITED, 500]


def test_a_large_event_is_accepted_and_its_bytes_are_owed(scripts: Scripts) -> None:
    large = Entry("large", body="x" * 30)

    assert scripts.append(large, Entry("next", body="y" * 30), limits=(0, 10, 0)) == [
        *(ACCEPTED, b"1", LIMITED, BYTES_PER_SECOND),
        3_000,
    ]
    assert scripts.usage()["bytes_left"] == "-20"


def test_events_over_the_day_wait_for_midnight_utc(scripts: Scripts) -> None:
    day_ms = 86_400_000
    before_ms = day_ms - time.time_ns() // 1_000_000 % day_ms
    *outcomes, wait_ms = scripts.append(Entry("a"), Entry("b"), limits=(0, 0, 1))

    assert outcomes == [ACCEPTED, b"1", LIMITED, PER_DAY]
    assert 0 < wait_ms <= day_ms
    assert wait_ms <= before_ms or before_ms < 60_000  # or midnight passed meanwhile


def test_the_count_of_the_day_ends_with_the_day(scripts: Scripts) -> None:
    scripts.append(Entry("a"), limits=(0, 0, 1))
    scripts.client.hincrby(KEYS.usage, "at_ms", -86_400_000)

    assert scripts.append(Entry("b"), limits=(0, 0, 1)) == [ACCEPTED, b"2", 0]


def test_the_limit_with_the_longest_wait_is_named(scripts: Scripts) -> None:
    assert scripts.append(Entry("a", body="x" * 20), Entry("b"), limits=(1, 10, 1))[2:4] == [LIMITED, PER_DAY]
    assert Scripts().append(Entry("a", body="x" * 20), Entry("b"), limits=(1, 10, 0))[2:4] == [LIMITED, PER_SECOND]


def test_a_duplicate_is_answered_over_the_limit_and_costs_nothing(scripts: Scripts) -> None:
    scripts.append(Entry("a"), limits=(1, 0, 0))

    assert scripts.append(Entry("a"), Entry("a", "bb"), limits=(1, 0, 0)) == [DUPLICATE, b"1", CONFLICT, b"1", 0]


# -- what is counted, and who hears of it ----------------------------------------------------------------------------------


def test_rejected_events_are_counted_and_their_tenant_is_listed(scripts: Scripts) -> None:
    assert scripts.append(rejected=3) == [0]
    assert scripts.append(Entry("a"), rejected=2) == [ACCEPTED, b"1", 0]

    assert scripts.usage() == {"rejected": "5"}
    assert scripts.client.smembers(KEYS.tenants) == {TENANT.encode()}


def test_a_new_log_gets_every_registered_group_from_its_start(scripts: Scripts) -> None:
    scripts.register("g")
    scripts.register("h")
    scripts.append(Entry("a"))

    groups = {group["name"]: group["last-delivered-id"] for group in scripts.client.xinfo_groups(KEYS.log)}
    assert groups == {b"g": b"0-0", b"h": b"0-0"}
    assert list(scripts.ready("g")) == list(scripts.ready("h")) == [TENANT]


def test_a_tenant_that_is_due_keeps_its_place_and_is_published_once(scripts: Scripts) -> None:
    scripts.register("g")
    listening = scripts.client.pubsub(ignore_subscribe_messages=True)
    listening.subscribe(READY_CHANNEL)

    scripts.append(Entry("a"))
    due = scripts.ready()
    scripts.append(Entry("b"))

    messages: list[Any] = [message for _ in range(4) if (message := listening.get_message())]
    assert [message["data"] for message in messages] == [str(KEYS.partition).encode()]
    assert scripts.ready() == due
    listening.close()


def test_what_writes_nothing_makes_no_tenant_due(scripts: Scripts) -> None:
    scripts.append(Entry("a"))
    scripts.register("g")

    scripts.append(Entry("a"))
    scripts.append(Entry("b"), Entry("c"), limits=(0, 0, 1))
    assert list(scripts.ready()) == [TENANT]
    scripts.client.flushall()
    scripts.register("g")
    scripts.append(rejected=1)
    assert scripts.ready() == {}
