"""How every command runs and ends.

It loads the settings first. An error that a person can act on becomes one sentence and exit status 1.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, NoReturn

from redis.exceptions import RedisError

from streams.errors import PenstockError
from streams.runtime import env_file
from streams.runtime.settings import Settings, load_settings

log_of_settings = logging.getLogger("settings")
ENV_FILE_CHECKED = "PENSTOCK_ENV_FILE_CHECKED"  # set for the processes of `penstock run`, which has warned already
INTERRUPTED = 130  # the exit status of a command that Ctrl-C ended

Act = Callable[[Settings], Coroutine[Any, Any, int | None]]


def run_command(act: Act, *, run: Callable[[Coroutine[Any, Any, int | None]], int | None] = asyncio.run) -> NoReturn:
    """Run a command, and end the process with its exit status.

    `act` gets the settings and returns the status, None for 0. `run` is the event loop's runner.
    """
    with exit_with_sentence():
        status = run(act(command_settings()))
    sys.exit(status or 0)


def command_settings() -> Settings:
    """The settings of a command. Raises SettingError.

    It warns of each name in `.env` that looks like a setting and is none.
    """
    from_file = env_file.values()
    if ENV_FILE_CHECKED not in os.environ:
        for sentence in env_file.unknown_names(from_file, Settings.__struct_encode_fields__):
            log_of_settings.warning(sentence)
    return load_settings(from_file | os.environ)


@contextlib.contextmanager
def exit_with_sentence() -> Iterator[None]:
    """End the process with one sentence for an error.

    Every error that a person cannot act on is a bug, and rises. BrokenPipeError rises too: click ends the command without a word
    when the reader of its output has closed it.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except (PenstockError, OSError, RedisError) as error:
        sys.exit(sentence_of(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def sentence_of(error: Exception) -> str:
    """What an error says to a person, on one line."""
    words = " ".join(str(error).splitlines())
    if isinstance(error, OSError) and error.errno:
        reason = error.strerror or os.strerror(error.errno)
        words = f"{error.filename}: {reason}" if error.filename else reason
    words = words or type(error).__name__
    return words if words.endswith((".", "?", "!")) else f"{words}."


def stop_event() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def wait_for_signal(words: str) -> None:
    """Print why there is nothing to do, and wait for SIGTERM.

    So one Procfile serves every installation.
    """
    stop = stop_event()
    print(words, flush=True)
    await stop.wait()
