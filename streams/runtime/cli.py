"""What the commands of python -m streams share."""

import asyncio
import signal
import sys

from streams.errors import ArchiveUnavailable, BadTenant, DamagedArchive, Gap, LogUnavailable
from streams.runtime.settings import SettingError, Settings, load_settings

COMMAND_SECONDS = 30.0  # commands may wait longer for a busy server than a request may
KNOWN_ERRORS = (ArchiveUnavailable, BadTenant, DamagedArchive, Gap, LogUnavailable)


def settings_or_exit() -> Settings:
    """The settings; ends the process with one sentence when one cannot be used."""
    try:
        return load_settings()
    except SettingError as error:
        sys.exit(str(error))


def stopping() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def wait_for_signal(words: str) -> None:
    """Say why there is nothing to do, and wait for the end: the same Procfile serves both."""
    stop = stopping()
    print(words, flush=True)
    await stop.wait()
