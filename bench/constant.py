"""What the API is compared with: the same uvicorn and Starlette, reading the body and answering a constant."""

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.protocol import protocol_of
from streams import load_settings

ANSWER = b'{"status":"accepted","event_hash":"0123456789abcdef0123456789abcdef","position":123456}'


async def post_events(request: Request) -> Response:
    """POST /api/events: always the same receipt."""
    await request.body()
    return Response(ANSWER, 202, media_type="application/json")


def main() -> None:
    """Serve with the options of `python -m api`."""
    settings = load_settings()
    uvicorn.run(
        Starlette(routes=[Route("/api/events", post_events, methods=["POST"])]),
        host=settings.host,
        port=settings.port,
        http=protocol_of(settings),
        ws="none",
        loop="uvloop",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=65,
        timeout_graceful_shutdown=4,
        backlog=4096,
    )


if __name__ == "__main__":
    main()
