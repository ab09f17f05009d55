"""What commands share: the open log, and how long they wait."""

import contextlib
from collections.abc import AsyncIterator

from streams.connection import Connection
from streams.log import Log
from streams.runtime.settings import Settings

COMMAND_SECONDS = 30.0  # a command may wait longer for a busy server than a request may
CONNECT_SECONDS = 1.0  # a server that is not there is reported at once


@contextlib.asynccontextmanager
async def open_log(settings: Settings, *, budget_seconds: float = COMMAND_SECONDS) -> AsyncIterator[Log]:
    """The log that the settings name, and its archive."""
    async with Log(
        Connection(settings.log_url, budget_seconds=budget_seconds, connect_seconds=CONNECT_SECONDS),
        dedup_window_seconds=settings.dedup_window_seconds,
        archive_url=settings.archive,
    ) as log:
        yield log
