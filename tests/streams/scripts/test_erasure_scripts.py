"""control, rewrite, suppress, delete_tenant: what is removed stays out."""

from typing import Any

import pytest
from redis.exceptions import ResponseError

from streams.keys import keys_of, leases_key, ready_key
from tests.support.scripts import HOUR_MS, TENANT, Entry, Scripts, addresses, lease_addresses

KEYS = keys_of(TENANT)


# -- control ---------------------------------------------------------------------------------------------------------------


def control(scripts: Scripts, record: str = "drop") -> Any:
    return scripts.run("control", [KEYS.log, KEYS.tenants, KEYS.groups, KEYS.deleted], *addresses(KEYS), 7, record)


def test_a_control_record_is_put_at_the_end_of_a_log(scripts: Scripts) -> None:
    scripts.filled(2)
    scripts.register("g")

    assert control(scripts) == b"3"
    assert scripts.entries()[2:] == [("3-0", "drop", "2")]
    assert list(scripts.ready()) == [TENANT]


def test_the_same_control_record_twice_in_a_row_is_written_once(scripts: Scripts) -> None:
    scripts.filled(1)

    assert [control(scripts), control(scripts), control(scripts, "other"), control(scripts)] == [b"2", b"2", b"3", b"4"]


def test_an_event_with_the_text_of_a_control_record_is_none(scripts: Scripts) -> None:
    scripts.append(Entry("a", body="drop"))

    assert control(scripts) == b"2"


def test_a_control_record_needs_a_log_and_a_tenant(scripts: Scripts) -> None:
    assert control(scripts) == b"0"
    assert scripts.entries() == []
    scripts.filled(1)
    scripts.client.sadd(KEYS.deleted, KEYS.digest)
    with pytest.raises(ResponseError, match="DELETED"):
        control(scripts)


# -- rewrite ---------------------------------------------------------------------------------------------------------------


def rewrite(
    scripts: Scripts, after: str, *positions: int, through: int = 10**9, limit: int = 100, limit_bytes: int = 10**6
) -> str:
    keys = [KEYS.log, KEYS.rewrite, KEYS.archive_lease]
    reply: bytes = scripts.run("rewrite", keys, "me", after, through, "erased", limit, limit_bytes, *positions)
    return reply.decode()


def copied(scripts: Scripts) -> list[tuple[str, str, str]]:
    return [
        (entry_id.decode(), fields[b"event"].decode(), fields[b"version"].decode())
        for entry_id, fields in scripts.client.xrange(KEYS.rewrite)
    ]


@pytest.fixture
def held(scripts: Scripts) -> Scripts:
    """A log of 4 records, leased to "me"."""
    scripts.filled(4)
    scripts.client.set(KEYS.archive_lease, "me")
    return scripts


def test_a_log_is_copied_in_stretches_without_the_records_to_erase(held: Scripts) -> None:
    assert rewrite(held, "-", 2, limit=2) == "2-0"
    assert copied(held) == [("1-0", "b1", "1"), ("2-0", "erased", "2")]
    assert rewrite(held, "2-0", 3, limit=2) == "4-0"
    assert copied(held)[2:] == [("3-0", "erased", "2"), ("4-0", "b4", "1")]
    assert held.entries() == [(f"{i}-0", f"b{i}", "1") for i in range(1, 5)]


def test_a_stretch_ends_where_it_was_asked_to_and_by_its_bytes(held: Scripts) -> None:
    assert rewrite(held, "-", 2, through=3) == "3-0"
    assert rewrite(held, "-", limit_bytes=1) == "1-0"
    assert len(copied(held)) == 1, "a first stretch throws away the copy of an earlier run"


def test_an_erased_record_keeps_the_time_when_it_was_received_if_it_has_one(held: Scripts) -> None:
    held.client.xadd(KEYS.log, {"received_at_us": "soon"}, id="5-0")
    held.client.xadd(KEYS.log, {"foo": "bar"}, id="6-0")

    assert rewrite(held, "-", 4, 5, 6, limit=6) == "6-0"
    assert [fields[b"received_at_us"] for _, fields in held.client.xrange(KEYS.rewrite, "4")] == [b"7", b"0", b"0"]


def test_a_rewrite_without_the_lease_is_refused(held: Scripts) -> None:
    held.client.set(KEYS.archive_lease, "other")

    assert rewrite(held, "-") == "taken"
    assert copied(held) == []


def test_the_copy_of_a_missing_log_is_removed(held: Scripts) -> None:
    rewrite(held, "-", limit=2)
    held.client.delete(KEYS.log)

    assert rewrite(held, "2-0", limit=2) == "missing"
    assert copied(held) == []


def test_a_log_that_lost_entries_meanwhile_is_copied_again(held: Scripts) -> None:
    rewrite(held, "-", limit=2)
    held.client.xdel(KEYS.log, "1-0")

    assert rewrite(held, "2-0", limit=10) == "moved"
    assert copied(held) == []


def test_a_log_whose_entries_were_all_removed_is_finished(held: Scripts) -> None:
    held.client.xtrim(KEYS.log, maxlen=0, approximate=False)

    assert rewrite(held, "-") == "done"


# -- suppress --------------------------------------------------------------------------------------------------------------


def suppress(scripts: Scripts, salt: str, *identities: tuple[str, str, int, str]) -> int:
    """Identities as salted name, name, position and hash_parts."""
    names = [KEYS.dedup + Entry(name).event_hash for _, name, *_ in identities]
    arguments = [part for salted, _, position, hash_parts in identities for part in (salted, position, hash_parts)]
    return int(scripts.run("suppress", [KEYS.suppressed, *names], salt, *arguments))


def test_a_suppressed_identity_loses_its_deduplication_key(scripts: Scripts) -> None:
    scripts.append(Entry("a"), Entry("b"))

    assert suppress(scripts, "salt", ("s1", "a", 1, "4.9")) == 1
    assert (scripts.dedup("a"), scripts.dedup("b")) == (None, "2/aa/4.9")
    assert scripts.client.hgetall(KEYS.suppressed) == {b"salt": b"salt", b"s1": b"1"}


def test_other_hash_parts_of_a_deduplication_key_stay_for_their_time(scripts: Scripts) -> None:
    scripts.append(Entry("a", "aa", "4.9"), Entry("a", "bb", "5.8"))
    key = KEYS.dedup + Entry("a").event_hash
    scripts.client.pexpire(key, HOUR_MS)

    suppress(scripts, "salt", ("s1", "a", 1, "4.9"))

    assert scripts.dedup("a") == "2/bb/5.8"
    assert HOUR_MS - 60_000 < scripts.client.pttl(key) <= HOUR_MS


def test_suppressing_again_changes_nothing(scripts: Scripts) -> None:
    assert suppress(scripts, "salt", ("s1", "a", 1, "4.9"), ("s2", "b", 2, "4.9")) == 2
    assert suppress(scripts, "salt", ("s1", "a", 9, "4.9")) == 2
    assert scripts.client.hget(KEYS.suppressed, "s1") == b"1"
    assert suppress(scripts, "salt") == 2


def test_names_with_another_salt_are_of_no_use_and_go(scripts: Scripts) -> None:
    suppress(scripts, "old", ("s1", "a", 1, "4.9"))

    assert suppress(scripts, "new", ("s2", "b", 2, "4.9")) == 1
    assert scripts.client.hgetall(KEYS.suppressed) == {b"salt": b"new", b"s2": b"2"}


# -- delete_tenant ---------------------------------------------------------------------------------------------------------


def delete_tenant(scripts: Scripts) -> int:
    keys = [KEYS.log, KEYS.tenants, KEYS.groups, KEYS.usage, KEYS.deleted, KEYS.suppressed, KEYS.rewrite]
    return int(scripts.run("delete_tenant", keys, *lease_addresses(KEYS)))


def test_a_deleted_tenant_leaves_its_digest_only(scripts: Scripts) -> None:
    scripts.register("g")
    scripts.append(Entry("a"), Entry("b"), rejected=1)
    scripts.lease(group="g")
    scripts.client.set(KEYS.rewrite, "x")
    scripts.client.hset(KEYS.suppressed, "salt", "x")

    assert delete_tenant(scripts) == 2
    assert scripts.client.smembers(KEYS.deleted) == {KEYS.digest.encode()}
    assert scripts.client.smembers(KEYS.tenants) == set()
    for key in (
        KEYS.log,
        KEYS.usage,
        KEYS.suppressed,
        KEYS.rewrite,
        ready_key(KEYS.partition, "g"),
        leases_key(KEYS.partition, "g"),
    ):
        assert not scripts.client.exists(key), key
    with pytest.raises(ResponseError, match="DELETED"):
        scripts.append(Entry("c"))


def test_deleting_again_or_a_tenant_without_a_log_removes_no_record(scripts: Scripts) -> None:
    assert [delete_tenant(scripts), delete_tenant(scripts)] == [0, 0]
    scripts.client.set(KEYS.log, "in the way")
    assert delete_tenant(scripts) == 0
