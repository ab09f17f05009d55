"""Named points at which a test may end the process, as kill -9 would: FAILPOINT=name, or FAILPOINT=name:3 for the third pass."""

import os
from functools import cache
from itertools import count


def failpoint(name: str) -> None:
    """End the process here if FAILPOINT says so."""
    wanted, nth, passes = _fault()
    if wanted == name and next(passes) >= nth:
        os._exit(137)


@cache
def _fault() -> tuple[str, int, "count[int]"]:
    wanted, _, nth = os.environ.get("FAILPOINT", "").partition(":")
    return wanted, int(nth or 1), count(1)
