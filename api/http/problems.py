"""Problems: the table that turns errors into answers.

An answer is problem+json (RFC 9457): a stable code, a sentence, and where a limit was exceeded, the limit and the value.
"""

from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match

from api.schemas import ProblemDetails
from projector import StoreUnavailable
from streams import Rejected
from streams.errors import BadTenant, LogBusy, LogFull, LogRefused, LogUnavailable, TenantDeleted

HEADERS = {503: {"retry-after": "1"}, 429: {"retry-after": "1"}, 401: {"www-authenticate": 'Bearer realm="penstock"'}}


class Problem(Exception):
    """A request cannot be answered as it was sent.

    `status` is the HTTP status, `code` is stable, `extra` holds further members, such as `limit` and `value`.
    """

    def __init__(self, status: int, code: str, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.extra = extra


# Errors of the log and the tables: (status, code). 503 means: sending the same request again is safe and may succeed.
ERRORS: dict[type[Exception], tuple[int, str]] = {
    LogUnavailable: (503, "log-unavailable"),
    LogFull: (503, "log-full"),
    LogBusy: (503, "overloaded"),
    LogRefused: (500, "log-refused"),
    StoreUnavailable: (503, "tables-unavailable"),
    BadTenant: (400, "tenant-invalid"),
    TenantDeleted: (410, "tenant-deleted"),
    Rejected: (400, "invalid-request"),
}
CODES = {404: "not-found", 405: "method-not-allowed"}


def problem_bytes(status: int, code: str, detail: str, **extra: Any) -> bytes:
    """The body of a problem, as JSON."""
    return msgspec.json.encode(
        ProblemDetails(type=f"urn:penstock:problem:{code}", code=code, status=status, detail=detail, **extra)
    )


def response_of(problem: Problem) -> Response:
    """The HTTP response for a problem."""
    headers = HEADERS.get(problem.status, {})
    body = problem_bytes(problem.status, problem.code, problem.detail, **problem.extra)
    return Response(body, problem.status, headers=headers, media_type="application/problem+json")


def problem_of(error: Exception) -> Problem:
    """The problem for an error of the log or the tables."""
    status, code = next(ERRORS[kind] for kind in type(error).__mro__ if kind in ERRORS)
    extra = {name: value for name in ("limit", "value") if (value := getattr(error, name, None)) is not None}
    return Problem(status, code, str(error), **extra)


async def on_problem(request: Request, error: Exception) -> Response:
    """Answer a problem that a route raised."""
    assert isinstance(error, Problem)
    return response_of(error)


async def on_known_error(request: Request, error: Exception) -> Response:
    """Answer an error of the log or the tables."""
    return response_of(problem_of(error))


async def on_http_error(request: Request, error: Exception) -> Response:
    """Answer an unknown path, a wrong method, and other HTTP errors."""
    assert isinstance(error, HTTPException)
    code = CODES.get(error.status_code, "http-error")
    response = response_of(Problem(error.status_code, code, f"{request.method} {request.url.path}: {error.detail}"))
    response.headers.update(error.headers or {})
    if error.status_code == 405:  # the framework lists the methods of the path's first route only
        routes = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
        response.headers["allow"] = ", ".join(sorted({method for route in routes for method in route.methods}))
    return response


async def on_disconnect(request: Request, error: Exception) -> Response:
    """End a request whose client has disconnected: no answer reaches it."""
    return Response(status_code=499)


async def on_unknown_error(request: Request, error: Exception) -> Response:
    """Answer an unexpected error.

    Starlette raises the error again after the answer, so that it is logged with its traceback.
    """
    return response_of(Problem(500, "internal-error", "an unexpected error; the server's log has the details"))


HANDLERS: dict[Any, Any] = {
    Problem: on_problem,
    HTTPException: on_http_error,
    ClientDisconnect: on_disconnect,
    Exception: on_unknown_error,
    **dict.fromkeys(ERRORS, on_known_error),
}
