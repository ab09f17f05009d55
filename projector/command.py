"""What the commands of python -m projector share: settings, log and tables opened, what is wrong said in one sentence, a bar."""

import contextlib
import gc
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Self

import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from projector.guard import LogBehind, LogDiffers, LogErased
from projector.rebuild import NothingToRollBack, RebuildRefused, SwapTooSlow
from projector.sqlite import SqliteStore
from projector.store import OtherProjection, RebuildRunning, StoreUnavailable, open_store
from streams import (
    BadTenant,
    Hole,
    Log,
    LogFull,
    LogUnavailable,
    SettingError,
    Settings,
    TenantErased,
    Wire,
    load_settings,
    notes,
)

COMMAND_SECONDS = 30.0  # commands may wait longer for a busy server than a request may
KNOWN_ERRORS = (
    LogUnavailable,
    LogFull,
    LogBehind,
    LogDiffers,
    LogErased,
    TenantErased,
    notes.LogMissing,
    StoreUnavailable,
    OtherProjection,
    RebuildRunning,
    NothingToRollBack,
    SwapTooSlow,
    Hole,
    BadTenant,
)


class CommandRefused(Exception):
    """What was asked for cannot be done; the message says why."""


def run_command(act: Callable[[Settings], Coroutine[Any, Any, int]]) -> None:
    """Run a command; what is wrong with settings or surroundings ends it with one sentence."""
    gc.set_threshold(100_000, 20, 20)  # batches are many small objects that hold no cycles
    try:
        sys.exit(uvloop.run(act(load_settings())))
    except (SettingError, CommandRefused) as error:
        sys.exit(str(error))
    except RebuildRefused as error:
        sys.exit("Refused; nothing was changed.\n" + "\n".join(f"- {reason}" for reason in error.reasons))
    except KNOWN_ERRORS as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


@contextlib.asynccontextmanager
async def opened(settings: Settings, budget_seconds: float = COMMAND_SECONDS) -> AsyncIterator[tuple[Log, SqliteStore]]:
    """The log and the tables that settings name."""
    with open_store(settings.tables_url, cache_mib=settings.cache_mib) as store:
        async with Log(Wire(settings.log_url, budget_seconds=budget_seconds)) as log:
            yield log, store


class _Rate(ProgressColumn):
    """Records a second."""

    def render(self, task: Task) -> Text:
        """The column's text."""
        return Text(f"{task.speed or 0:,.0f} records/s")


class Bar:
    """A bar in a terminal, plain lines elsewhere; called with records done and records in all."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._bar: Progress | None = None
        self._said = -1

    def __enter__(self) -> Self:
        console = Console(stderr=True)
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=console, redirect_stdout=False)  # which may be a file
            self._task = self._bar.add_task(self._title, total=None)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """Show how far it is."""
        if self._bar:
            self._bar.update(self._task, completed=done, total=total)
        elif done * 10 // max(total, 1) > self._said:
            self._said = done * 10 // max(total, 1)
            print(f"{self._title}: {done} of {total} records", file=sys.stderr, flush=True)
