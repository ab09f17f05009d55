"""A turn's plan: bounded in records and bytes, whole for the small, a share for a flood."""

from hypothesis import given
from hypothesis import strategies as st

from projector.live.scheduling import READ_AHEAD, UNKNOWN_RECORDS, BatchLimits, LeasedTenant, plan, quotas
from projector.projection import Checkpoint
from streams import Lease

SMALL = 200  # what a record takes in memory, in bytes


def leased(*, newest_bytes: int = SMALL, **backlogs: int) -> dict[str, LeasedTenant]:
    """Tenants in the order in which they became due, level groups, and what each has not applied."""
    return {
        tenant: LeasedTenant(
            Lease(tenant, since_ms, last=100 + backlog, delivered=100, pending=0, newest_bytes=newest_bytes),
            Checkpoint(100, "", 0),
        )
        for since_ms, (tenant, backlog) in enumerate(backlogs.items(), 1)
    }


def test_a_flood_does_not_push_out_the_small() -> None:
    parts = plan(leased(flood=1_000_000, small=3, other=7), {"flood": SMALL}, BatchLimits(100, 2**40))

    assert [(want.lease.tenant, want.count) for want in parts[0]] == [("small", 3), ("other", 7), ("flood", 90)]
    assert [[want.lease.tenant for want in part] for part in parts[1:]] == [["flood"]] * (READ_AHEAD - 1)


def test_floods_share_what_there_is() -> None:
    assert quotas(leased(a=1_000, b=1_000, c=10), 210, 50) == [("c", 10), ("a", 100), ("b", 100)]


def test_floods_get_slices_no_thinner_than_that_in_the_order_in_which_they_wait() -> None:
    waiting = leased(b=1_000, small=3, c=1_000, a=80)

    assert quotas(waiting, 203, 100) == [("small", 3), ("b", 100), ("c", 100)]


def test_who_got_nothing_keeps_its_place_and_who_got_something_goes_to_the_end() -> None:
    waiting = leased(a=1_000, b=1_000)
    waiting["a"].served = True

    assert [turn.release().since_ms for turn in waiting.values()] == [0, 2]


def test_a_backlog_that_spans_batches_is_read_in_order_and_compared_once() -> None:
    parts = plan(leased(a=250), {}, BatchLimits(100, 2**40))

    assert [(want.after, want.count, want.first) for part in parts for want in part] == [
        (100, 100, True),
        (200, 100, False),
        (300, 50, False),
    ]


def test_a_record_larger_than_a_batch_is_read_alone() -> None:
    parts = plan(leased(a=2, b=1), {"a": 1_000, "b": 1_000}, BatchLimits(100, 500))

    assert [[want.count for want in part] for part in parts] == [[1]] * 3


def test_of_a_tenant_nobody_has_seen_little_is_read_whatever_its_newest_record_says() -> None:
    [[want]] = plan(leased(a=100_000), {}, BatchLimits(5_000, 2**40))

    assert want.count == UNKNOWN_RECORDS


def test_a_newest_record_that_is_larger_than_the_last_ones_seen_is_believed() -> None:
    parts = plan(leased(a=300, newest_bytes=1_000), {"a": SMALL}, BatchLimits(5_000, 100_000))

    assert [[want.count for want in part] for part in parts] == [[100]] * 3


@given(
    backlogs=st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(0, 10_000), min_size=1, max_size=30),
    sizes=st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(200, 70_000)),
    newest_bytes=st.integers(200, 70_000),
    records=st.integers(1, 500),
    size_bytes=st.integers(70_000, 2**24),
)
def test_no_batch_passes_its_bounds_and_nobody_gets_more_than_waits(
    backlogs: dict[str, int], sizes: dict[str, int], newest_bytes: int, records: int, size_bytes: int
) -> None:
    parts = plan(leased(**backlogs, newest_bytes=newest_bytes), sizes, BatchLimits(records, size_bytes))

    assert len(parts) <= READ_AHEAD
    for part in parts:
        assert sum(want.count for want in part) <= records
        assert sum(want.count * max(sizes.get(want.lease.tenant, 0), newest_bytes) for want in part) <= size_bytes
    for tenant, backlog in backlogs.items():
        assert sum(want.count for part in parts for want in part if want.lease.tenant == tenant) <= max(backlog, 1)
