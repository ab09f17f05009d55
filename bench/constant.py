"""The reference of the API: uvicorn and Starlette with a constant answer."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.commands.run import serve
from streams.runtime import load_settings

ANSWER = b'{"status":"accepted","event_hash":"0123456789abcdef0123456789abcdef","position":123456}'


async def post_events(request: Request) -> Response:
    """POST /api/events: always the same receipt."""
    await request.body()
    return Response(ANSWER, 202, media_type="application/json")


def main() -> None:
    """Serve as `python -m api` does."""
    serve(Starlette(routes=[Route("/api/events", post_events, methods=["POST"])]), load_settings())


if __name__ == "__main__":
    main()
