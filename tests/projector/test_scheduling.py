"""A plan reads small backlogs whole and shares the rest of a batch."""

from hypothesis import given
from hypothesis import strategies as st

from projector.live.scheduling import READ_AHEAD, UNKNOWN_RECORDS, BatchLimits, LeasedTenant, plan, quotas
from projector.projection import Checkpoint
from streams import Lease

SMALL = 200  # the size of a record in memory, in bytes


def leased(*, newest_bytes: int = SMALL, **backlogs: int) -> dict[str, LeasedTenant]:
    """Leased tenants with their backlogs, in the order of waiting."""
    return {
        tenant: LeasedTenant(
            Lease(tenant, since_ms, last=100 + backlog, delivered=100, pending=0, newest_bytes=newest_bytes),
            Checkpoint(100, "", 0),
        )
        for since_ms, (tenant, backlog) in enumerate(backlogs.items(), 1)
    }


def test_a_large_backlog_does_not_displace_small_backlogs() -> None:
    parts = plan(leased(flood=1_000_000, small=3, other=7), {"flood": SMALL}, BatchLimits(100, 2**40))

    assert [(request.lease.tenant, request.count) for request in parts[0]] == [("small", 3), ("other", 7), ("flood", 90)]
    assert [[request.lease.tenant for request in part] for part in parts[1:]] == [["flood"]] * (READ_AHEAD - 1)


def test_large_backlogs_share_the_batch_equally() -> None:
    assert quotas(leased(a=1_000, b=1_000, c=10), 210, 50) == [("c", 10), ("a", 100), ("b", 100)]


def test_large_backlogs_get_at_least_a_minimum_share_in_order_of_waiting() -> None:
    waiting = leased(b=1_000, small=3, c=1_000, a=80)

    assert quotas(waiting, 203, 100) == [("small", 3), ("b", 100), ("c", 100)]


def test_a_tenant_without_a_share_keeps_its_place_and_a_served_tenant_goes_to_the_end() -> None:
    waiting = leased(a=1_000, b=1_000)
    waiting["a"].served = True

    assert [tenant.release().since_ms for tenant in waiting.values()] == [0, 2]


def test_a_backlog_that_spans_batches_is_read_in_order_and_compared_once() -> None:
    parts = plan(leased(a=250), {}, BatchLimits(100, 2**40))

    assert [(request.after, request.count, request.first) for part in parts for request in part] == [
        (100, 100, True),
        (200, 100, False),
        (300, 50, False),
    ]


def test_a_record_larger_than_a_batch_is_read_alone() -> None:
    parts = plan(leased(a=2, b=1), {"a": 1_000, "b": 1_000}, BatchLimits(100, 500))

    assert [[request.count for request in part] for part in parts] == [[1]] * 3


def test_few_records_are_read_from_a_tenant_of_unknown_record_size() -> None:
    [[request]] = plan(leased(a=100_000), {}, BatchLimits(5_000, 2**40))

    assert request.count == UNKNOWN_RECORDS


def test_a_newest_record_larger_than_earlier_records_reduces_the_count() -> None:
    parts = plan(leased(a=300, newest_bytes=1_000), {"a": SMALL}, BatchLimits(5_000, 100_000))

    assert [[request.count for request in part] for part in parts] == [[100]] * 3


@given(
    backlogs=st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(0, 10_000), min_size=1, max_size=30),
    sizes=st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(200, 70_000)),
    newest_bytes=st.integers(200, 70_000),
    records=st.integers(1, 500),
    size_bytes=st.integers(70_000, 2**24),
)
def test_no_batch_exceeds_its_limits_and_no_tenant_gets_more_than_its_backlog(
    backlogs: dict[str, int], sizes: dict[str, int], newest_bytes: int, records: int, size_bytes: int
) -> None:
    parts = plan(leased(**backlogs, newest_bytes=newest_bytes), sizes, BatchLimits(records, size_bytes))

    assert len(parts) <= READ_AHEAD
    for part in parts:
        assert sum(request.count for request in part) <= records
        assert sum(request.count * max(sizes.get(request.lease.tenant, 0), newest_bytes) for request in part) <= size_bytes
    for tenant, backlog in backlogs.items():
        assert sum(request.count for part in parts for request in part if request.lease.tenant == tenant) <= max(backlog, 1)
