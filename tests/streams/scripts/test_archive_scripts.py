"""archive_lease, trim, recover, import_records: records leave and return."""

from typing import Any

import pytest
from redis.exceptions import ResponseError

from streams.keys import keys_of
from tests.support.scripts import TENANT, Entry, Scripts, addresses

KEYS = keys_of(TENANT)
HOUR_MS = 3_600_000


# -- archive_lease ---------------------------------------------------------------------------------------------------------


def archive_lease(scripts: Scripts, lease_owner: str = "me") -> Any:
    return scripts.run("archive_lease", [KEYS.log, KEYS.groups, KEYS.archive_lease], lease_owner, HOUR_MS)


def test_a_log_is_archived_by_one_lease_owner_at_a_time(scripts: Scripts) -> None:
    scripts.filled(3)

    assert archive_lease(scripts) != []
    assert archive_lease(scripts, "other") == []
    assert archive_lease(scripts) != []
    assert scripts.client.get(KEYS.archive_lease) == b"me"
    assert 0 < scripts.client.pttl(KEYS.archive_lease) <= HOUR_MS


def test_a_tenant_without_a_log_has_nothing_to_archive(scripts: Scripts) -> None:
    assert archive_lease(scripts) == [b"0", b"0", b"0"]


def test_what_every_group_acknowledged_may_be_archived(scripts: Scripts) -> None:
    scripts.filled(5)
    scripts.client.xdel(KEYS.log, "1-0")
    scripts.deliver("g", 4)
    scripts.deliver("h", 5)
    for position in (2, 3):
        scripts.client.xack(KEYS.log, "g", f"{position}-0")
        scripts.client.xack(KEYS.log, "h", f"{position}-0")

    assert archive_lease(scripts) == [b"3", b"5", b"2"]


def test_a_log_without_groups_or_with_one_that_has_not_begun_keeps_all(scripts: Scripts) -> None:
    scripts.filled(5)
    assert archive_lease(scripts) == [b"0", b"5", b"1"]
    scripts.deliver("g", 5, acknowledged=5)
    assert archive_lease(scripts) == [b"5", b"5", b"1"]
    scripts.register("not begun")
    assert archive_lease(scripts) == [b"0", b"5", b"1"]


def test_the_oldest_record_of_a_log_that_holds_none_is_the_next(scripts: Scripts) -> None:
    scripts.filled(2)
    scripts.client.xdel(KEYS.log, "1-0", "2-0")

    assert archive_lease(scripts) == [b"0", b"2", b"3"]


# -- trim ------------------------------------------------------------------------------------------------------------------


def trim(scripts: Scripts, after: int, through: int, first_body: str, last_body: str, *, lease_owner: str = "me") -> int:
    keys = [KEYS.log, KEYS.usage, KEYS.archive_lease]
    return int(scripts.run("trim", keys, lease_owner, after, first_body, through, last_body))


@pytest.fixture
def acknowledged(scripts: Scripts) -> Scripts:
    """A log of 5 records, all of them acknowledged, leased to "me"."""
    scripts.filled(5)
    scripts.deliver("g", 5, acknowledged=5)
    archive_lease(scripts)
    return scripts


def test_what_an_archive_has_is_removed(acknowledged: Scripts) -> None:
    assert trim(acknowledged, 0, 3, "b1", "b3") == 1
    assert acknowledged.entries() == [("4-0", "b4", "1"), ("5-0", "b5", "1")]
    assert acknowledged.usage() == {"archived": "3"}
    assert trim(acknowledged, 3, 4, "b4", "b4") == 1
    assert acknowledged.usage() == {"archived": "4"}


def test_only_the_lease_owner_trims(acknowledged: Scripts) -> None:
    assert trim(acknowledged, 0, 3, "b1", "b3", lease_owner="late") == -1
    acknowledged.client.delete(KEYS.archive_lease)
    assert trim(acknowledged, 0, 3, "b1", "b3") == -1
    assert len(acknowledged.entries()) == 5


@pytest.mark.parametrize(("first_body", "last_body"), [("other", "b3"), ("b1", "other")])
def test_a_log_with_other_records_than_the_segment_is_not_trimmed(acknowledged: Scripts, first_body: str, last_body: str) -> None:
    assert trim(acknowledged, 0, 3, first_body, last_body) == -2
    assert len(acknowledged.entries()) == 5


@pytest.mark.parametrize("position", [1, 3])
def test_a_log_that_lacks_the_ends_of_the_segment_is_not_trimmed(acknowledged: Scripts, position: int) -> None:
    acknowledged.client.xdel(KEYS.log, f"{position}-0")

    assert trim(acknowledged, 0, 3, "b1", "b3") == -2


def test_what_a_group_needs_and_the_newest_record_stay(acknowledged: Scripts) -> None:
    assert trim(acknowledged, 0, 5, "b1", "b5") == 0
    acknowledged.deliver("h", 3, acknowledged=2)
    assert trim(acknowledged, 0, 3, "b1", "b3") == 0
    assert trim(acknowledged, 0, 2, "b1", "b2") == 1


def test_a_log_that_lost_its_groups_is_not_trimmed(scripts: Scripts) -> None:
    scripts.filled(5)
    archive_lease(scripts)

    assert trim(scripts, 0, 3, "b1", "b3") == 0


def test_an_entry_by_hand_is_known_by_all_its_fields(scripts: Scripts) -> None:
    scripts.client.xadd(KEYS.log, {"foo": "bar"}, id="1-0")
    scripts.client.xadd(KEYS.log, {"event": "b", "received_at_us": "soon", "version": "1"}, id="2-0")
    scripts.client.xadd(KEYS.log, {"event": "b3", "received_at_us": "7", "version": "1"}, id="3-0")
    scripts.deliver("g", 3, acknowledged=3)
    archive_lease(scripts)

    assert trim(scripts, 0, 2, "foo bar", "b") == -2
    assert trim(scripts, 0, 2, "foo bar", "event b received_at_us soon version 1") == 1


# -- recover ---------------------------------------------------------------------------------------------------------------

Claim = tuple[str, int, str, str, int]  # an event's name; its position, digest and hash_parts; how long it is remembered, in ms


def dedup_arguments(claims: tuple[Claim, ...]) -> tuple[list[str], list[Any]]:
    return [KEYS.dedup + Entry(name).event_hash for name, *_ in claims], [part for _, *rest in claims for part in rest]


def recover(scripts: Scripts, through: int, *claims: Claim) -> int:
    names, arguments = dedup_arguments(claims)
    keys = [KEYS.log, KEYS.tenants, KEYS.groups, KEYS.usage, KEYS.deleted, *names]
    return int(scripts.run("recover", keys, *addresses(KEYS), through, 7, 1, "newest", *arguments))


def test_a_server_without_the_log_gets_its_newest_record_and_goes_on_after_it(scripts: Scripts) -> None:
    scripts.register("g")

    assert recover(scripts, 9, ("a", 8, "aa", "4.9", HOUR_MS)) == 9
    assert scripts.entries() == [("9-0", "newest", "1")]
    assert scripts.usage() == {"archived": "8"}
    assert list(scripts.ready()) == [TENANT]
    assert scripts.append(Entry("a"), Entry("b")) == [2, b"8", 1, b"10", 0]


def test_a_log_that_went_on_gets_the_deduplication_keys_only(scripts: Scripts) -> None:
    scripts.filled(12)

    assert recover(scripts, 9, ("a", 8, "aa", "4.9", HOUR_MS)) == 12
    assert len(scripts.entries()) == 12
    assert scripts.dedup("a") == "8/aa/4.9"


def test_a_log_that_ends_earlier_has_another_history_and_is_left_alone(scripts: Scripts) -> None:
    scripts.filled(3)

    assert recover(scripts, 9, ("a", 8, "aa", "4.9", HOUR_MS)) == 3
    assert len(scripts.entries()) == 3
    assert scripts.dedup("a") is None


def test_a_deleted_tenant_is_not_recovered(scripts: Scripts) -> None:
    scripts.client.sadd(KEYS.deleted, KEYS.digest)

    with pytest.raises(ResponseError, match="DELETED"):
        recover(scripts, 9)


# -- import_records --------------------------------------------------------------------------------------------------------


def import_records(scripts: Scripts, first: int, bodies: str, *claims: Claim) -> int:
    names, arguments = dedup_arguments(claims)
    records = [part for body in bodies for part in (7, 1, body)]
    keys = [KEYS.log, KEYS.tenants, KEYS.groups, KEYS.deleted, *names]
    return int(scripts.run("import_records", keys, *addresses(KEYS), first, len(bodies), *records, *arguments))


def test_records_get_the_positions_that_they_had(scripts: Scripts) -> None:
    scripts.register("g")

    assert import_records(scripts, 1, "xy", ("a", 2, "aa", "4.9", HOUR_MS)) == 0
    assert import_records(scripts, 3, "z") == 2
    assert scripts.entries() == [("1-0", "x", "1"), ("2-0", "y", "1"), ("3-0", "z", "1")]
    assert scripts.dedup("a") == "2/aa/4.9"
    assert list(scripts.ready()) == [TENANT]
    assert [group["name"] for group in scripts.client.xinfo_groups(KEYS.log)] == [b"g"]


@pytest.mark.parametrize("first", [1, 3, 5])
def test_records_that_are_not_the_next_are_not_written(scripts: Scripts, first: int) -> None:
    scripts.filled(3)

    assert import_records(scripts, first, "xy", ("a", first, "aa", "4.9", HOUR_MS)) == 3
    assert len(scripts.entries()) == 3
    assert scripts.dedup("a") is None


def test_a_deleted_tenant_gets_no_records(scripts: Scripts) -> None:
    scripts.client.sadd(KEYS.deleted, KEYS.digest)

    with pytest.raises(ResponseError, match="DELETED"):
        import_records(scripts, 1, "x")


def test_a_deduplication_key_keeps_its_first_event_and_the_longest_time(scripts: Scripts) -> None:
    scripts.append(Entry("a", "aa", "4.9"))
    import_records(scripts, 2, "x", ("a", 2, "bb", "5.8", HOUR_MS), ("a", 2, "cc", "4.9", 2 * HOUR_MS))

    assert scripts.dedup("a") == "1/aa/4.9 2/bb/5.8"
    assert HOUR_MS - 60_000 < scripts.client.pttl(KEYS.dedup + Entry("a").event_hash) <= HOUR_MS
    import_records(scripts, 3, "y", ("a", 3, "dd", "6.7", 1))
    assert scripts.client.pttl(KEYS.dedup + Entry("a").event_hash) > HOUR_MS - 60_000
