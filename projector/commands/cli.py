"""What the commands of python -m projector share: settings, log and tables opened, what is wrong said in one sentence."""

import contextlib
import gc
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import uvloop

from projector.rebuild.verify import Since
from projector.store import Store, open_store
from streams import Connection, Log
from streams.errors import PenstockError
from streams.runtime import Settings, load_settings

COMMAND_SECONDS = 30.0  # commands may wait longer for a busy server than a request may
COMMAND_CACHE_MIB = 32  # logs are read one after another, in order: what is written next is beside what was written last


class CommandRefused(PenstockError):
    """What was asked for cannot be done; the message says why."""


def run_command(act: Callable[[Settings], Coroutine[Any, Any, int]]) -> None:
    """Run a command; what is wrong with settings or surroundings ends it with one sentence."""
    gc.set_threshold(100_000, 20, 20)  # batches are many small objects that hold no cycles
    try:
        sys.exit(uvloop.run(act(load_settings())))
    except PenstockError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


@contextlib.asynccontextmanager
async def opened(
    settings: Settings, budget_seconds: float = COMMAND_SECONDS, *, cache_mib: int = COMMAND_CACHE_MIB
) -> AsyncIterator[tuple[Log, Store]]:
    """The log and the tables that settings name."""
    gap_seconds = settings.session_gap_seconds
    with open_store(settings.tables_url, cache_mib=cache_mib, session_gap_seconds=gap_seconds) as store:
        async with Log(Connection(settings.log_url, budget_seconds=budget_seconds), archive_url=settings.archive) as log:
            yield log, store


def moment_us(text: str) -> int:
    """A time that a person gave, RFC 3339 or shorter (2026-11-20T12:00Z), in microseconds. Raises ValueError."""
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
