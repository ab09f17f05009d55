"""The access log: a line for each failure, or for every request.

By default only failures are logged, up to ten lines a second for each status. With ACCESS_LOG=1 every request is logged.
Keys in paths are masked; queries and bodies are never logged.
"""

import logging
import re
import time
from typing import Any
from urllib.parse import unquote

import msgspec
from starlette.types import Scope

log_of_requests = logging.getLogger("api.requests")

LINES_PER_SECOND = 10  # for each status; when the log's server is down, thousands of requests fail
PATH_LIMIT_CHARACTERS = 1_000
MASK = "***"

_looks_like_a_key = re.compile(r"ps_[a-z]_|eyJ").search  # how Penstock's keys and JSON Web Tokens begin


class LogLineBudget(msgspec.Struct, frozen=True):
    """Lines logged in a second, and lines skipped since the last."""

    second: int = 0
    lines: int = 0
    skipped: int = 0

    def spend(self, second: int) -> tuple["LogLineBudget", int | None]:
        """The budget after a failure, and how many lines were skipped.

        The second value counts the lines skipped before this failure. It is None when the line of this failure must be skipped,
        too.
        """
        if self.second != second:
            return LogLineBudget(second, 1), self.skipped
        if self.lines < LINES_PER_SECOND:
            return LogLineBudget(second, self.lines + 1), self.skipped
        return msgspec.structs.replace(self, skipped=self.skipped + 1), None


class AccessLog:
    """Decides whether a request gets a line, and writes it."""

    def __init__(self, *, every_request: bool) -> None:
        self.every_request = every_request
        self._budgets: dict[int, LogLineBudget] = {}

    def write(self, scope: Scope, status: int, body: bytes, seconds: float, error: Exception | None) -> None:
        """Log an answered request. `body` is the last chunk of the answer."""
        path = masked_path(scope["raw_path"], scope.get("path_params", {}).get("key"))[:PATH_LIMIT_CHARACTERS]
        members: dict[str, Any] = {"method": scope["method"], "path": path, "status": status}
        if status >= 500:
            members["code"] = _problem_code(body)
        if self.every_request:
            members["milliseconds"] = round(seconds * 1_000, 3)
            members["client"] = scope["client"][0] if scope["client"] else None
        else:
            budget = self._budgets.get(status, LogLineBudget())
            self._budgets[status], skipped = budget.spend(int(time.monotonic()))
            if skipped is None:
                return
            if skipped:
                members["skipped"] = skipped
        failed = status >= 500 or error is not None
        level = logging.INFO if not failed else logging.WARNING if status == 503 else logging.ERROR
        log_of_requests.log(level, "failed" if failed else "answered", extra=members, exc_info=error)


def masked_path(raw_path: bytes, key: str | None) -> str:
    """A path with its keys masked.

    Some SDKs can send a key only in the path. `key` is the value of the path parameter `key`, if the route has one. A segment
    that looks like a key is masked, too, because no route may have matched.
    """
    segments = raw_path.decode("latin-1").split("/")
    return "/".join(MASK if segment and _is_key(unquote(segment), key) else segment for segment in segments)


def _is_key(segment: str, key: str | None) -> bool:
    return segment == key or _looks_like_a_key(segment) is not None


class _Problem(msgspec.Struct):
    code: str | None = None


_decode = msgspec.json.Decoder(_Problem).decode


def _problem_code(body: bytes) -> str | None:
    """The code in a problem document; None for any other body."""
    try:
        return _decode(body).code
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
