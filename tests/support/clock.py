"""A stopwatch that does not count the time that a busy machine takes away."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

STEP_SECONDS = 0.002
LONGEST_STEP_SECONDS = 0.01


class Stopwatch:
    """The seconds in which this process could run, since the start."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._started = self._last = time.monotonic()
        self.stopped = threading.Event()

    @property
    def wall_seconds(self) -> float:
        """The seconds since the start, by the clock."""
        return time.monotonic() - self._started

    def run(self) -> None:
        """Count in small steps; a step that took long was not this process's own."""
        while not self.stopped.wait(STEP_SECONDS):
            now = time.monotonic()
            self.seconds += min(now - self._last, LONGEST_STEP_SECONDS)
            self._last = now


@contextmanager
def stopwatch() -> Iterator[Stopwatch]:
    """Measure how long something takes that waits more than it works.

    A bound on `seconds` holds on a machine that is busy with something else, too. What works rather than waits is measured by
    `time.thread_time`.
    """
    watch = Stopwatch()
    thread = threading.Thread(target=watch.run, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.stopped.set()
        thread.join()
