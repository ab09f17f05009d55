"""CORS: which web pages may call the API from a browser.

Error answers carry the headers, too; without them a page could not read why its request was refused.
"""

from collections.abc import Sequence
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.problems import Problem, response_of

PREFLIGHT_SECONDS = 7_200  # no browser caches a preflight answer for longer
EXPOSED = ("retry-after", "www-authenticate", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "x-request-id")

HeaderList = list[tuple[bytes, bytes]]


class Cors(CORSMiddleware):
    """Starlette's middleware, open to every header that a page sends.

    Credentials are always allowed: here they are headers that the page itself sets. No cookie, which a browser would add
    unasked, grants anything.
    """

    def __init__(self, app: ASGIApp, *, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            allow_credentials=True,
            expose_headers=EXPOSED,
            max_age=PREFLIGHT_SECONDS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a preflight request: 204, or 403 as a problem."""
        response = super().preflight_response(request_headers)
        if response.status_code == 200:
            return Response(status_code=204, headers=self._cors_headers(response))
        refusal = response_of(Problem(403, "origin-not-allowed", bytes(response.body).decode()))
        refusal.headers.update(self._cors_headers(response))
        return refusal

    @staticmethod
    def _cors_headers(response: Response) -> dict[str, str]:
        return {name: value for name, value in response.headers.items() if not name.startswith("content-")}


class CorsHeaders:
    """The headers that Cors adds, for answers from outside the application."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._cors = Cors(_empty_app, origins=origins) if origins else None

    def for_request(self, request_headers: HeaderList) -> HeaderList:
        """The CORS headers of the answer to a request with these headers."""
        added: HeaderList = []

        async def keep_headers(message: Message) -> None:
            added.extend(message["headers"])

        if self._cors:
            scope = {"type": "http", "method": "GET", "headers": request_headers}
            with suppress(StopIteration):  # the coroutine never waits, so a single step runs it to its end
                self._cors(scope, _no_body, keep_headers).send(None)
        return added


async def _empty_app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "headers": []})


async def _no_body() -> Message:
    return {"type": "http.disconnect"}
