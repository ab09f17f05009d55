"""What any process needs: settings, logging, progress, retries, files. Nothing about logs."""

from streams.runtime.failpoints import failpoint
from streams.runtime.files import sync, written_whole
from streams.runtime.logging_setup import configure_logging
from streams.runtime.progress import Progress, Show
from streams.runtime.retry import retry
from streams.runtime.settings import SettingError, Settings, load_settings

__all__ = [
    "Progress",
    "SettingError",
    "Settings",
    "Show",
    "configure_logging",
    "failpoint",
    "load_settings",
    "retry",
    "sync",
    "written_whole",
]
