"""Named points at which a test may end the process, as kill -9 would: FAULT_AT=name, or FAULT_AT=name:3 for the third pass."""

import os
from functools import cache
from itertools import count


def fault_point(name: str) -> None:
    """End the process here if FAULT_AT says so."""
    wanted, nth, passes = _fault()
    if wanted == name and next(passes) >= nth:
        os._exit(137)


@cache
def _fault() -> tuple[str, int, "count[int]"]:
    wanted, _, nth = os.environ.get("FAULT_AT", "").partition(":")
    return wanted, int(nth or 1), count(1)
