"""Batches: items in lists of limited length and size."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def batches(items: Iterable[Item], *, max_items: int, max_bytes: int, size_of: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Items in lists of at most `max_items` items and `max_bytes` bytes.

    An item larger than `max_bytes` is alone in its list. When `items` raises, the items before come first, then its error.
    """
    batch: list[Item] = []
    batch_bytes = 0
    try:
        for item in items:
            item_bytes = size_of(item)
            if batch and (len(batch) == max_items or batch_bytes + item_bytes > max_bytes):
                yield batch
                batch, batch_bytes = [], 0
            batch.append(item)
            batch_bytes += item_bytes
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch
