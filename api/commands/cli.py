"""What commands share: the settings, the open tables, times."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from projector import Store, open_store
from streams.errors import PenstockError
from streams.runtime import Settings, command_settings, exit_with_sentence

BUSY_SECONDS = 30.0  # a rebuild that makes its indexes holds up other writers


class CommandRefused(PenstockError):
    """What was asked for cannot be done; the message says why."""


@contextmanager
def opened() -> Iterator[tuple[Settings, Store]]:
    """The settings, and the tables that they name.

    An error that a person can act on ends the command with its sentence.
    """
    with exit_with_sentence():
        settings = command_settings()
        gap_seconds = settings.session_gap_seconds
        with open_store(settings.tables_url, cache_mib=8, busy_seconds=BUSY_SECONDS, session_gap_seconds=gap_seconds) as store:
            yield settings, store


def moment(moment_us: int) -> str:
    """A time for a person, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(moment_us // 1_000_000))
