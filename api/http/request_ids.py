"""Request ids: each answer carries one, and each line logged for it."""

import itertools
import re
import secrets
import time
from contextvars import ContextVar
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import STRUCTLOG_KEY_PREFIX

from api.http.access_log import AccessLog

HEADER = b"x-request-id"

_current: ContextVar[str] = ContextVar(f"{STRUCTLOG_KEY_PREFIX}request_id")  # structlog finds it by this name
_prefix = f"{secrets.token_hex(6)}-"  # ids are not secret; they only have to differ between processes
_count = itertools.count(1)
_is_valid = re.compile(rb"[A-Za-z0-9._-]{1,64}").fullmatch


def request_id_of(headers: list[tuple[bytes, bytes]]) -> str:
    """The client's X-Request-ID if it is usable, else a new id.

    Usable: there is exactly one, of 64 characters at most, all of them safe in headers and logs.
    """
    values = [value for name, value in headers if name == HEADER]
    if len(values) == 1 and _is_valid(values[0]):
        return values[0].decode()
    return f"{_prefix}{next(_count):x}"


class RequestIds:
    """ASGI middleware around the whole application.

    It costs each request about a microsecond, so it does only what every request needs.
    """

    def __init__(self, app: ASGIApp, *, access_log: bool = False) -> None:
        self._app = app
        self._log = AccessLog(every_request=access_log)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request.

        An error after a complete answer is logged here. Any other error goes to the server, which has to end the answer.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(scope["headers"])
        _current.set(request_id)  # never reset: each request is a task of its own, and the server may log after this returns
        status, body, complete = 0, b"", False

        def send_with_id(message: Message) -> Any:
            nonlocal status, body, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (HEADER, request_id.encode())]
            else:
                body, complete = message.get("body", b""), not message.get("more_body", False)
            return send(message)

        every_request = self._log.every_request
        start = time.perf_counter() if every_request else 0.0
        error: Exception | None = None
        try:
            await self._app(scope, receive, send_with_id)
        except Exception as raised:
            if not complete:
                raise
            error = raised
        if status >= 500 or error or every_request:
            self._log.write(scope, status, body, time.perf_counter() - start, error)
