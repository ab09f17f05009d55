"""Log lines on stderr: JSON for programs, text for terminals.

No line shows a password of an address.
"""

import logging
import sys
from typing import Any, TextIO

from structlog.contextvars import merge_contextvars
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.processors import JSONRenderer, TimeStamper, format_exc_info
from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_log_level, add_logger_name
from structlog.typing import EventDict

from streams.runtime.settings import log_format, without_passwords


def configure_logging(stream: TextIO | None = None) -> None:
    """Render everything that this process logs, as LOG_FORMAT says.

    An invalid LOG_FORMAT counts as `auto` here: the command ends with a sentence about it when it loads its settings.
    """
    logging.basicConfig(
        handlers=[logging.NullHandler()], force=True
    )  # a warning about .env is logged when the settings are loaded
    handler = logging.StreamHandler(stream or sys.stderr)
    terminal = handler.stream.isatty()
    handler.setFormatter(formatter(as_text=is_text(log_format(), terminal), colors=terminal))
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)


def is_text(given: str, terminal: bool) -> bool:
    """Whether lines are text: as LOG_FORMAT says, or in a terminal."""
    return given == "text" or (given != "json" and terminal)


def formatter(*, as_text: bool, colors: bool = False) -> logging.Formatter:
    """A formatter for lines of text, or for one JSON object a line.

    A line has the message, the time, the level, the logger, what is bound to the context (such as a request's id), and the
    traceback of an exception, which never shows values of variables.
    """
    text = ConsoleRenderer(colors=colors, exception_formatter=plain_traceback, pad_event_to=0)
    return ProcessorFormatter(
        foreign_pre_chain=(ExtraAdder(), merge_contextvars, add_log_level, add_logger_name, TimeStamper(fmt="iso", utc=True)),
        processors=(ProcessorFormatter.remove_processors_meta, format_exc_info, _clean, text if as_text else JSONRenderer()),
    )


def _clean(logger: Any, name: str, members: EventDict) -> EventDict:
    """Remove passwords, blanks at the ends, and uvicorn's extra."""
    members.pop("color_message", None)
    for member in members.keys() & {"event", "exception"}:
        members[member] = without_passwords(members[member]).strip()
    return members
