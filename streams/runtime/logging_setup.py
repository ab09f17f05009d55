"""What processes say about themselves: a line a record on stderr, JSON for machines or text for a terminal, without secrets."""

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
    """Render all that is logged in this process as LOG_FORMAT says. A LOG_FORMAT that is none is `auto` here: the command
    ends with a sentence about it when it loads its settings."""
    logging.basicConfig(handlers=[logging.NullHandler()], force=True)  # what is odd in .env is said when settings are loaded
    handler = logging.StreamHandler(stream or sys.stderr)
    terminal = handler.stream.isatty()
    handler.setFormatter(formatter(as_text=is_text(log_format(), terminal), colors=terminal))
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)


def is_text(given: str, terminal: bool) -> bool:
    """Whether lines are for a person: as LOG_FORMAT says, and otherwise when they go to a terminal."""
    return given == "text" or (given != "json" and terminal)


def formatter(*, as_text: bool, colors: bool = False) -> logging.Formatter:
    """Lines of text, or a JSON object a line: what was logged, when and by whom, what is bound to the context (such as a
    request's id), and the traceback of an exception, which never shows values of variables."""
    text = ConsoleRenderer(colors=colors, exception_formatter=plain_traceback, pad_event_to=0)
    return ProcessorFormatter(
        foreign_pre_chain=(ExtraAdder(), merge_contextvars, add_log_level, add_logger_name, TimeStamper(fmt="iso", utc=True)),
        processors=(ProcessorFormatter.remove_processors_meta, format_exc_info, _clean, text if as_text else JSONRenderer()),
    )


def _clean(logger: Any, name: str, members: EventDict) -> EventDict:
    """Without passwords, blank ends, and what uvicorn adds for its own formatter."""
    members.pop("color_message", None)
    for member in members.keys() & {"event", "exception"}:
        members[member] = without_passwords(members[member]).strip()
    return members
