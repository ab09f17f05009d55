"""What commands share: log and tables, event loop, options."""

import contextlib
import gc
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import click
import uvloop

from projector.rebuild.verify import Since
from projector.store import FileStore, Store, open_store
from streams import Log, runtime
from streams.commands import open_log
from streams.errors import PenstockError
from streams.runtime import Act, Settings

COMMAND_CACHE_MIB = 32  # logs are read one after another, in order: what is written next is beside what was written last


class CommandRefused(PenstockError):
    """What was asked for cannot be done; the message says why."""


def run_command(act: Act) -> NoReturn:
    """Run a command on uvloop, and end with its exit status."""
    gc.set_threshold(100_000, 20, 20)  # batches are many small objects that hold no cycles
    runtime.run_command(act, run=uvloop.run)


@contextlib.asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[tuple[Log, Store]]:
    """The log and the tables that the settings name, for a command that ends."""
    with open_store(settings.tables_url, cache_mib=COMMAND_CACHE_MIB, session_gap_seconds=settings.session_gap_seconds) as store:
        async with open_log(settings) as log:
            yield log, store


def file_store(store: Store) -> FileStore:
    """The store, for a command that needs its file. Raises CommandRefused."""
    if not isinstance(store, FileStore):
        raise CommandRefused(f"these tables are not in a file: {store.location}")
    return store


def moment_us(text: str) -> int:
    """A time that a person gave, in microseconds.

    RFC 3339 or shorter: 2026-11-20T12:00Z. Raises ValueError.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("it has no offset")
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


class Moment(click.ParamType[int]):
    """A time with its offset."""

    name = "time"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> int:
        """Microseconds."""
        try:
            return value if isinstance(value, int) else moment_us(value)
        except ValueError:
            self.fail(f"{value!r} is no time with an offset, such as 2026-11-20T12:00Z", parameter, context)


class Begin(click.ParamType[Since]):
    """A position, or a time with its offset."""

    name = "position|time"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Since:
        """Where to begin."""
        if isinstance(value, Since):
            return value
        if value.isascii() and value.isdigit():
            return Since(position=int(value))
        return Since(received_at_us=Moment().convert(value, parameter, context))
