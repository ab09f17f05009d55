"""Progress of a long command, on stderr.

Bars in a terminal, a line for each tenth elsewhere.
"""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

STEP = 1_000_000  # a line for each, where the total is unknown

Show = Callable[[int, int | None], None]  # how much is done, and how much there is; None when that is unknown


class Progress:
    """Shows progress.

    Call it with what is done and the total, or call its stages, which are shown one below another.
    """

    def __init__(self, title: str = "", *, unit: str = "records") -> None:
        self._unit = unit
        self._bars: Bars | None = None
        self._show = self.stage(title)

    def __enter__(self) -> Self:
        # Imported here, so that a process that shows nothing does not load what a terminal needs.
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
        """Show how far it is."""
        self._show(done, total)

    def stage(self, title: str, *, unit: str = "") -> Show:
        """A function that shows one stage.

        The stage's bar appears when the function is first called.
        """
        unit = unit or self._unit
        task: TaskID | None = None
        last_step = -1

        def show(done: int, total: int | None) -> None:
            nonlocal task, last_step
            if self._bars:
                task = self._bars.add_task(title, total=None, rate="") if task is None else task
                speed = next(entry.speed for entry in self._bars.tasks if entry.id == task)
                self._bars.update(task, completed=done, total=total, rate=f"{speed or 0:,.0f} {unit}/s")
                return
            step = done // STEP if total is None else done * 10 // max(total, 1)
            if step > last_step:
                last_step = step
                of_total = "" if total is None else f" of {total}"
                print(f"{title}: {done}{of_total} {unit}", file=sys.stderr, flush=True)

        return show
