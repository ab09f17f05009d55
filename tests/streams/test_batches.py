"""Batches hold all items in order, and none passes its limits."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.batches import batches


@given(st.lists(st.integers(0, 12)), st.integers(1, 5), st.integers(1, 10))
def test_all_items_come_in_order_within_the_limits(sizes: list[int], max_items: int, max_bytes: int) -> None:
    made_batches = list(batches(sizes, max_items=max_items, max_bytes=max_bytes, size_of=lambda size: size))

    assert [size for batch in made_batches for size in batch] == sizes
    assert all(len(batch) <= max_items and (sum(batch) <= max_bytes or len(batch) == 1) for batch in made_batches)
    assert [] not in made_batches


@given(st.lists(st.integers(0, 12), min_size=2), st.integers(1, 5), st.integers(1, 10))
def test_a_batch_ends_only_where_the_next_item_does_not_fit(sizes: list[int], max_items: int, max_bytes: int) -> None:
    made_batches = list(batches(sizes, max_items=max_items, max_bytes=max_bytes, size_of=lambda size: size))

    for batch, following in pairwise(made_batches):
        assert len(batch) == max_items or sum(batch) + following[0] > max_bytes


def test_items_before_an_error_are_given_before_the_error() -> None:
    def numbers() -> Iterator[int]:
        yield from (1, 2, 3)
        raise ValueError("the source is damaged")

    made_batches = batches(numbers(), max_items=2, max_bytes=100, size_of=lambda number: number)

    assert [next(made_batches), next(made_batches)] == [[1, 2], [3]]
    with pytest.raises(ValueError, match="damaged"):
        next(made_batches)
