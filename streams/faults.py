"""Named points at which a test may end the process, as kill -9 would: FAULT_AT=name, or FAULT_AT=name:3 for the third pass."""

import os
from collections import Counter

_passed: Counter[str] = Counter()


def fault_point(name: str) -> None:
    """End the process here if FAULT_AT says so."""
    wanted, _, nth = os.environ.get("FAULT_AT", "").partition(":")
    if wanted == name:
        _passed[name] += 1
        if _passed[name] >= int(nth or 1):
            os._exit(137)
