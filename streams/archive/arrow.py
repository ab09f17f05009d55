"""pyarrow, imported when an archive is first used.

The import takes half a second and tens of MiB, which processes that use no archive do not pay.
"""

from functools import cache
from typing import Any


@cache
def arrow() -> Any:
    """The module pyarrow, with `fs` and `parquet`."""
    import pyarrow
    import pyarrow.fs
    import pyarrow.parquet

    return pyarrow
