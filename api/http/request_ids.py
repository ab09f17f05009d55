"""Request ids: every answer carries one, and every line that is logged on the way to it. And what is logged of answers."""

import itertools
import logging
import re
import secrets
import time
from contextvars import ContextVar
from typing import Any
from urllib.parse import unquote

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import STRUCTLOG_KEY_PREFIX

log_of_requests = logging.getLogger("api.requests")

HEADER = b"x-request-id"
PATH_LIMIT_CHARACTERS = 1_000
LINES_A_SECOND = 10  # of failures of one status; a server that is away fails thousands

_current: ContextVar[str] = ContextVar(f"{STRUCTLOG_KEY_PREFIX}request_id")  # the name under which the log finds it
_prefix = f"{secrets.token_hex(6)}-"  # ids need not be secret, only different in each process
_count = itertools.count(1)
MASK = "***"
_looks_like_a_key = re.compile(r"ps_[a-z]_|eyJ").search  # and as every token begins
_is_sane = re.compile(rb"[A-Za-z0-9._-]{1,64}").fullmatch


def request_id_of(headers: list[tuple[bytes, bytes]]) -> str:
    """The client's X-Request-ID when there is one, and only one, that may stand in headers and logs; else a new id."""
    given = [value for name, value in headers if name == HEADER]
    if len(given) == 1 and _is_sane(given[0]):
        return given[0].decode()
    return f"{_prefix}{next(_count):x}"


def path_without_key(raw_path: bytes, key: str | None) -> str:
    """A path as it may be logged: SDKs that have no other place for a key put it there. `key` is the one that a route found;
    where none did, it is known by how it looks."""
    segments = raw_path.decode("latin-1").split("/")
    return "/".join(MASK if segment and _is_key(unquote(segment), key) else segment for segment in segments)


def _is_key(segment: str, key: str | None) -> bool:
    return segment == key or _looks_like_a_key(segment) is not None


class Told(msgspec.Struct, frozen=True):
    """How many lines were logged in a second, and how many were left out since the last line."""

    second: int = 0
    lines: int = 0
    left_out: int = 0


def tell(told: Told, second: int) -> tuple[Told, int | None]:
    """What is told after one more failure in this second; and how many were left out before its line, or None when it is
    left out itself."""
    if told.second != second:
        return Told(second, 1), told.left_out
    if told.lines < LINES_A_SECOND:
        return Told(second, told.lines + 1), told.left_out
    return msgspec.structs.replace(told, left_out=told.left_out + 1), None


class RequestIds:
    """ASGI around the whole application. It costs each request a microsecond, so it does only what each needs."""

    def __init__(self, app: ASGIApp, *, access_log: bool = False) -> None:
        self._app = app
        self._access_log = access_log
        self._told: dict[int, Told] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. An error behind a whole answer is logged here, any other by the server, which must end it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(scope["headers"])
        _current.set(request_id)  # and never reset: each request is a task, and the server may log after us
        status, body, complete = 0, b"", False

        def send_marked(message: Message) -> Any:
            nonlocal status, body, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (HEADER, request_id.encode())]
            else:
                body, complete = message.get("body", b""), not message.get("more_body", False)
            return send(message)

        began = time.perf_counter() if self._access_log else 0.0
        error: Exception | None = None
        try:
            await self._app(scope, receive, send_marked)
        except Exception as raised:
            if not complete:
                raise
            error = raised
        if status >= 500 or error or self._access_log:
            self._log(scope, status, body, time.perf_counter() - began, error)

    def _log(self, scope: Scope, status: int, body: bytes, seconds: float, error: Exception | None) -> None:
        path = path_without_key(scope["raw_path"], scope.get("path_params", {}).get("key"))[:PATH_LIMIT_CHARACTERS]
        said: dict[str, Any] = {"method": scope["method"], "path": path, "status": status}
        if status >= 500:
            said["code"] = _code_of(body)
        if self._access_log:
            said["milliseconds"] = round(seconds * 1_000, 3)
            said["client"] = scope["client"][0] if scope["client"] else None
        else:
            self._told[status], left_out = tell(self._told.get(status, Told()), int(time.monotonic()))
            if left_out is None:
                return
            if left_out:
                said["left_out"] = left_out
        failed = status >= 500 or error is not None
        level = logging.INFO if not failed else logging.WARNING if status == 503 else logging.ERROR
        log_of_requests.log(level, "failed" if failed else "answered", extra=said, exc_info=error)


class _Problem(msgspec.Struct):
    code: str | None = None


_decode = msgspec.json.Decoder(_Problem).decode


def _code_of(body: bytes) -> str | None:
    """The code of a problem; None when the answer is something else."""
    try:
        return _decode(body).code
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
