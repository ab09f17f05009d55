"""The file `.env`: settings for every process.

The environment comes first.
"""

import difflib
import os
from collections.abc import Collection, Iterable

from dotenv import dotenv_values

ENV_FILE = ".env"
SIMILARITY = 0.8  # of difflib: PORTS is like PORT, POSTGRES_URL is not like REDIS_URL

OLD_NAMES = {  # the names that settings had before
    "ADDRESS_LIMIT_CONNECTIONS": "MAX_CONNECTIONS_PER_ADDRESS",
    "ALLOW_OPEN": "ALLOW_OPEN_ACCESS",
    "APPEND_SECONDS": "APPEND_TIMEOUT_SECONDS",
    "BATCH_BYTES": "PROJECTOR_BATCH_BYTES",
    "BATCH_RECORDS": "PROJECTOR_BATCH_RECORDS",
    "CACHE_MIB": "SQLITE_CACHE_MIB",
    "EVENT_LIMIT_BYTES": "MAX_EVENT_BYTES",
    "FREE_DISK_BYTES": "MIN_FREE_DISK_BYTES",
    "READ_WAIT_SECONDS": "READ_WAIT_TIMEOUT_SECONDS",
    "REQUEST_LIMIT_BYTES": "MAX_REQUEST_BYTES",
    "REQUEST_LIMIT_EVENTS": "MAX_REQUEST_EVENTS",
    "REQUEST_SECONDS": "REQUEST_TIMEOUT_SECONDS",
    "SERVER_MEMORY_BYTES": "EMBEDDED_SERVER_MEMORY_BYTES",
    "WINDOW_SECONDS": "DEDUP_WINDOW_SECONDS",
}


def values() -> dict[str, str]:
    """What `.env` sets.

    Inside a value, `$` and `#` are characters like any other; a `#` after a blank begins a comment.
    """
    return {name: value or "" for name, value in dotenv_values(ENV_FILE, interpolate=False).items()}


def environment() -> dict[str, str]:
    """What `.env` sets, and over it the environment."""
    return values() | os.environ


def unknown_names(names: Iterable[str], known: Collection[str]) -> list[str]:
    """A sentence for each name that is no setting but looks like one.

    That is an old name or a typo. Names of other programs are ignored.
    """
    sentences = []
    for name in names:
        if name in known:
            continue
        if name in OLD_NAMES:
            sentences.append(f"{ENV_FILE} sets {name}, which is called {OLD_NAMES[name]} now: the line is ignored")
        elif meant := difflib.get_close_matches(name.upper(), known, n=1, cutoff=SIMILARITY):
            sentences.append(f"{ENV_FILE} sets {name}, which is no setting: the line is ignored; {meant[0]} is meant?")
    return sentences
