"""Named points at which a test may end the process.

FAILPOINT=name ends it at the first pass, as kill -9 would; FAILPOINT=name:3 at the third.
"""

import os
from functools import cache
from itertools import count


def failpoint(name: str) -> None:
    """End the process here, if FAILPOINT names this point."""
    point, nth, passes = _fault()
    if point == name and next(passes) >= nth:
        os._exit(137)


@cache
def _fault() -> tuple[str, int, "count[int]"]:
    point, _, nth = os.environ.get("FAILPOINT", "").partition(":")
    return point, int(nth or 1), count(1)
