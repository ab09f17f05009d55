"""How far a long command is: a bar in a terminal, a plain line now and then elsewhere; on stderr."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

EVERY = 1_000_000  # a line, where nobody knows how many there are in all


Show = Callable[[int, int | None], None]


class Progress:
    """Called with what is done and what there is in all, None when nobody knows; or its stages are, one below the other."""

    def __init__(self, title: str = "", *, unit: str = "records") -> None:
        self._unit = unit
        self._bars: Bars | None = None
        self._show = self.stage(title)

    def __enter__(self) -> Self:
        # Only here: every process that imports the log would carry what a terminal needs.
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        if console.is_terminal:
            title, rate = TextColumn("{task.description}"), TextColumn("{task.fields[rate]}")
            columns = (title, BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
            # what is printed meanwhile goes above the bars, unless it goes to a file
            self._bars = Progress(*columns, console=console, redirect_stdout=sys.stdout.isatty())
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars:
            self._bars.stop()

    def __call__(self, done: int, total: int | None) -> None:
        """Show it, if it is worth a line."""
        self._show(done, total)

    def stage(self, title: str) -> Show:
        """One of several bars, there from when it is first called."""
        task: TaskID | None = None
        said = -1

        def show(done: int, total: int | None) -> None:
            nonlocal task, said
            if self._bars:
                task = self._bars.add_task(title, total=None, rate="") if task is None else task
                speed = next(one.speed for one in self._bars.tasks if one.id == task)
                self._bars.update(task, completed=done, total=total, rate=f"{speed or 0:,.0f} {self._unit}/s")
                return
            step = done // EVERY if total is None else done * 10 // max(total, 1)
            if step > said:
                said = step
                of = "" if total is None else f" of {total}"
                print(f"{title}: {done}{of} {self._unit}", file=sys.stderr, flush=True)

        return show
