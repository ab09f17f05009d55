"""The table that turns errors into answers: problem+json (RFC 9457) with a stable code, the limit and the value."""

import logging
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match

from api.schemas import ProblemDetails
from projector import StoreUnavailable
from streams import BadTenant, LogBusy, LogFull, LogRefused, LogUnavailable, Rejected, TenantDeleted

log_of_api = logging.getLogger("api")
HEADERS = {503: {"retry-after": "1"}, 429: {"retry-after": "1"}, 401: {"www-authenticate": 'Bearer realm="penstock"'}}


class Problem(Exception):
    """A request cannot be answered as asked. `status` is the HTTP status, `code` is stable, `extra` says what was passed."""

    def __init__(self, status: int, code: str, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.extra = extra


# What the log and the tables raise: (status, code). 503 means that sending the same again is safe and may help.
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
TITLES = {404: "not-found", 405: "method-not-allowed"}


def problem_bytes(status: int, code: str, detail: str, **extra: Any) -> bytes:
    """The body of a problem."""
    return msgspec.json.encode(
        ProblemDetails(type=f"urn:penstock:problem:{code}", code=code, status=status, detail=detail, **extra)
    )


def answer(problem: Problem) -> Response:
    """The response that a problem is."""
    headers = HEADERS.get(problem.status, {})
    body = problem_bytes(problem.status, problem.code, problem.detail, **problem.extra)
    return Response(body, problem.status, headers=headers, media_type="application/problem+json")


def problem_of(error: Exception) -> Problem:
    """The problem that an error of the log or the tables is."""
    status, code = next(ERRORS[kind] for kind in type(error).__mro__ if kind in ERRORS)
    extra = {name: value for name in ("limit", "value") if (value := getattr(error, name, None)) is not None}
    return Problem(status, code, str(error), **extra)


async def on_problem(request: Request, error: Exception) -> Response:
    """A problem raised by a route."""
    assert isinstance(error, Problem)
    return answer(error)


async def on_known(request: Request, error: Exception) -> Response:
    """An error of the log or the tables."""
    return answer(problem_of(error))


async def on_http(request: Request, error: Exception) -> Response:
    """What the framework refuses: an unknown path, a method."""
    assert isinstance(error, HTTPException)
    code = TITLES.get(error.status_code, "http-error")
    response = answer(Problem(error.status_code, code, f"{request.method} {request.url.path}: {error.detail}"))
    response.headers.update(error.headers or {})
    if error.status_code == 405:  # the framework names the methods of the first route of that path only
        found = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
        response.headers["allow"] = ", ".join(sorted({method for route in found for method in route.methods}))
    return response


async def on_disconnect(request: Request, error: Exception) -> Response:
    """The client went away; nobody reads this."""
    return Response(status_code=499)


async def on_unknown(request: Request, error: Exception) -> Response:
    """What nobody foresaw. Starlette raises it again afterwards, so that it is logged with its traceback."""
    return answer(Problem(500, "internal-error", "this should not have happened; the server's log says more"))


HANDLERS: dict[Any, Any] = {
    Problem: on_problem,
    HTTPException: on_http,
    ClientDisconnect: on_disconnect,
    Exception: on_unknown,
    **dict.fromkeys(ERRORS, on_known),
}
