"""CORS: the pages that may speak to the door from a browser; answers that are errors say so, too."""

from collections.abc import Sequence
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.problems import Problem, answer

PREFLIGHT_SECONDS = 7_200  # no browser keeps an answer longer
EXPOSED = ("retry-after", "www-authenticate", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "x-request-id")

HeaderList = list[tuple[bytes, bytes]]


class Cors(CORSMiddleware):
    """Starlette's, for any header a page sends. A page's credentials are headers of its own, so they are always allowed:
    nothing here is believed because a browser keeps it, as it keeps cookies."""

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
        """The answer to a browser that asks first."""
        response = super().preflight_response(request_headers)
        if response.status_code == 200:
            return Response(status_code=204, headers=self._cross(response))
        refused = answer(Problem(403, "origin-not-allowed", bytes(response.body).decode()))
        refused.headers.update(self._cross(response))
        return refused

    @staticmethod
    def _cross(response: Response) -> dict[str, str]:
        return {name: value for name, value in response.headers.items() if not name.startswith("content-")}


class CorsHeaders:
    """What Cors adds to an answer, for answers that no application gives."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._cors = Cors(_bare, origins=origins) if origins else None

    def of(self, asked: HeaderList) -> HeaderList:
        """The headers that belong to the answer to a request with these headers."""
        added: HeaderList = []

        async def keep(message: Message) -> None:
            added.extend(message["headers"])

        if self._cors:
            with suppress(StopIteration):  # nothing in it waits
                self._cors({"type": "http", "method": "GET", "headers": asked}, _nothing, keep).send(None)
        return added


async def _bare(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "headers": []})


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
