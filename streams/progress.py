"""How far a long command is: a bar in a terminal, a plain line now and then elsewhere; on stderr."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

EVERY = 1_000_000  # a line, where nobody knows how many there are in all


class Progress:
    """Called with what is done and what there is in all, None when nobody knows."""

    def __init__(self, title: str, *, unit: str = "records") -> None:
        self._title = title
        self._unit = unit
        self._bar: Bar | None = None
        self._said = -1

    def __enter__(self) -> Self:
        # Only here: every process that imports the log would carry what a terminal needs.
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        if console.is_terminal:
            title, rate = TextColumn("{task.description}"), TextColumn("{task.fields[rate]}")
            self._bar = Progress(title, BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn(), console=console)
            self._task = self._bar.add_task(self._title, total=None, rate="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, done: int, total: int | None) -> None:
        """Show it, if it is worth a line."""
        if self._bar:
            rate = f"{self._bar.tasks[0].speed or 0:,.0f} {self._unit}/s"
            self._bar.update(self._task, completed=done, total=total, rate=rate)
            return
        step = done // EVERY if total is None else done * 10 // max(total, 1)
        if step > self._said:
            self._said = step
            of = "" if total is None else f" of {total}"
            print(f"{self._title}: {done}{of} {self._unit}", file=sys.stderr, flush=True)


Show = Callable[[int, int | None], None]
