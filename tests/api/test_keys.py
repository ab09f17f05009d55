"""A tenant's keys share a Cluster slot, and belong to it alone."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from redis.crc import key_slot

from streams import keys_of
from streams.errors import BadTenant
from streams.keys import PARTITIONS, TENANT_PATTERN, groups_key, leases_key, log_prefix, ready_key, ready_prefix, tenants_key

names = st.from_regex(TENANT_PATTERN, fullmatch=True)
hashes = st.text(alphabet="0123456789abcdef", min_size=32, max_size=32)
groups = hashes.map(lambda digits: f"projector:{digits[:16]}")


@given(names, hashes, groups)
def test_all_keys_of_a_tenant_share_a_slot(tenant: str, event_hash: str, group: str) -> None:
    keys = keys_of(tenant)

    used = [
        keys.log,
        keys.dedup + event_hash,
        keys.tenants,
        keys.groups,
        ready_key(keys.partition, group),
        leases_key(keys.partition, group),
    ]

    assert len({key_slot(key.encode()) for key in used}) == 1


@given(names)
def test_a_tenants_keys_are_those_of_its_partition(tenant: str) -> None:
    keys = keys_of(tenant)

    assert 0 <= keys.partition < PARTITIONS
    assert keys.log == log_prefix(keys.partition) + tenant
    assert (keys.tenants, keys.groups) == (tenants_key(keys.partition), groups_key(keys.partition))


@given(names, names, hashes, hashes, groups)
def test_no_key_belongs_to_two_tenants(one: str, other: str, hash_one: str, hash_other: str, group: str) -> None:
    assume(one != other)

    def own(tenant: str, event_hash: str) -> set[str]:
        return {keys_of(tenant).log, keys_of(tenant).dedup + event_hash}

    shared = {tenants_key(keys_of(one).partition), groups_key(keys_of(one).partition)}
    shared |= {ready_key(keys_of(one).partition, group), leases_key(keys_of(one).partition, group)}

    assert not own(one, hash_one) & own(other, hash_other)
    assert not own(one, hash_one) & shared


@pytest.mark.parametrize(("one", "other"), [("a", "a.b"), ("a", "a-"), ("seen", "log"), ("a", "aa")])
def test_a_name_that_is_part_of_another_has_its_own_keys(one: str, other: str) -> None:
    event_hash = "0" * 32

    assert keys_of(one).log != keys_of(other).log
    assert keys_of(one).dedup + event_hash != keys_of(other).dedup + event_hash


@pytest.mark.parametrize(
    "name",
    [
        "",
        "{1}",
        "}:log:acme",
        "a}",
        "a{b}",
        "a b",
        " a",
        "a\n",
        "a\0b",
        "a/b",
        "a*",
        "a?",
        "[a]",
        "é",
        "-a",
        ":a",
        "a:b",
        "a@b",
        ".",
        "x" * 65,
    ],
    ids=repr,
)
def test_a_name_that_could_reach_the_keys_of_another_is_refused(name: str) -> None:
    with pytest.raises(BadTenant) as refused:
        keys_of(name)

    assert refused.value.name == name
    assert "A-Z" in str(refused.value)


@given(st.text())
def test_any_name_is_refused_or_is_complete_in_its_keys(name: str) -> None:
    try:
        keys = keys_of(name)
    except BadTenant:
        return

    assert keys.log.endswith(f":log:{name}")
    assert keys.log.count("{") == keys.log.count("}") == 1


def test_tenants_spread_over_the_partitions() -> None:
    used = [keys_of(f"tenant-{i}").partition for i in range(6_400)]

    assert max(used.count(partition) for partition in range(PARTITIONS)) < 200
    assert min(used.count(partition) for partition in range(PARTITIONS)) > 50


def test_a_tenants_partition_never_changes() -> None:
    assert [keys_of(tenant).partition for tenant in ("acme", "globex", "a.b-c")] == [62, 58, 46]


def test_the_key_of_a_ready_queue_is_its_prefix_and_the_group() -> None:
    assert ready_key(7, "projector:ab") == ready_prefix(7) + "projector:ab" == "{7}:ready:projector:ab"
