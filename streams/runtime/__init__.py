"""What any process needs. Nothing here knows the log.

Settings, logging, how commands end, progress, retries, files.
"""

from streams.runtime.cli import (
    ENV_FILE_CHECKED,
    INTERRUPTED,
    Act,
    command_settings,
    exit_with_sentence,
    run_command,
    stop_event,
)
from streams.runtime.failpoints import failpoint
from streams.runtime.files import sync, written_whole
from streams.runtime.logging_setup import configure_logging
from streams.runtime.progress import Progress, Show
from streams.runtime.retry import retry
from streams.runtime.settings import SettingError, Settings, load_settings, log_format

__all__ = [
    "ENV_FILE_CHECKED",
    "INTERRUPTED",
    "Act",
    "Progress",
    "SettingError",
    "Settings",
    "Show",
    "command_settings",
    "configure_logging",
    "exit_with_sentence",
    "failpoint",
    "load_settings",
    "log_format",
    "retry",
    "run_command",
    "stop_event",
    "sync",
    "written_whole",
]
