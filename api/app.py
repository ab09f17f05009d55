"""The application: its routes, its errors, and what it opens and closes."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp

from api.auth import Admission, Registry, TokenVerifier
from api.formats import FOREIGN_ROUTES
from api.health import ServerCheck, healthz, readyz
from api.http import HANDLERS, BodyBudget, Cors, RequestIds
from api.ingest import PostEvents, PostForeign
from api.metrics import Metrics, get_metrics
from api.openapi import document_of, openapi
from api.query import find_receipt, get_events, get_receipt, get_session, get_sessions
from api.welcome import example_of, local_url, welcome
from projector import open_store
from streams import Connection, Log
from streams.runtime import Settings

log_of_api = logging.getLogger("api")

ROUTES = [
    Route("/", welcome, methods=["GET"]),
    Route("/api/events", PostEvents(), methods=["POST"]),
    Route("/api/events", get_events, methods=["GET"]),
    Route("/api/receipts", find_receipt, methods=["GET"]),
    Route("/api/receipts/{position}", get_receipt, methods=["GET"]),
    Route("/api/sessions", get_sessions, methods=["GET"]),
    Route("/api/sessions/{session_id:path}", get_session, methods=["GET"]),
    Route("/healthz", healthz, methods=["GET"]),
    Route("/openapi.json", openapi, methods=["GET"]),
    Route("/readyz", readyz, methods=["GET"]),
    Route("/metrics", get_metrics, methods=["GET"]),
    *(
        Route(foreign.path + slash, PostForeign(foreign), methods=foreign.methods, include_in_schema=not slash)
        for foreign in FOREIGN_ROUTES
        for slash in ("", "/")
    ),
]
BUSY_SECONDS = 1.0  # the API writes only when keys were used, and that can wait
POLL_UNREACHABLE_SECONDS, POLL_SECONDS = 0.2, 5.0


class App(Starlette):
    """An application whose every answer has a request id and CORS headers.

    The framework's own answers have them, too, such as the answer for an unexpected error.
    """

    origins: Sequence[str] = ()
    access_log = False

    def build_middleware_stack(self) -> ASGIApp:
        """Starlette's stack, wrapped in CORS and in request ids."""
        stack = super().build_middleware_stack()
        return RequestIds(Cors(stack, origins=self.origins) if self.origins else stack, access_log=self.access_log)


def create_app(settings: Settings) -> Starlette:
    """The application for these settings.

    Nothing is opened before it starts. Raises SettingError for an unusable key.
    """
    tokens = TokenVerifier(settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        connection = Connection(settings.log_url, budget_seconds=settings.append_timeout_seconds)
        gap_seconds = settings.session_gap_seconds
        with open_store(settings.tables_url, cache_mib=16, busy_seconds=BUSY_SECONDS, session_gap_seconds=gap_seconds) as store:
            async with Log(connection, dedup_window_seconds=settings.dedup_window_seconds, archive_url=settings.archive) as log:
                app.state.settings, app.state.log, app.state.store = settings, log, store
                app.state.server_check, app.state.metrics = ServerCheck(log, settings), Metrics(log, store)
                registry = app.state.registry = Registry(store, settings.limits)
                app.state.admission = Admission(settings, log, registry, tokens)
                async with registry.kept_fresh():
                    greeting = asyncio.create_task(_greet(app.state.server_check, settings))
                    yield
                    greeting.cancel()

    app = App(routes=ROUTES, exception_handlers=HANDLERS, lifespan=lifespan)
    app.origins, app.access_log = settings.origins, settings.access_log
    app.state.body_budget = BodyBudget(settings.max_request_bytes)
    app.state.document = document_of(ROUTES, settings)
    return app


async def _greet(server_check: ServerCheck, settings: Settings) -> None:
    """Print a command to try, as soon as it would work.

    Until then, log each reason why the server is not ready, once.
    """
    logged_codes: set[str] = set()
    while failures := await server_check.failures():
        for failure in failures:
            if failure.code not in logged_codes and failure.code != "server-unreachable":
                log_of_api.warning("not ready: %s: %s", failure.code, failure.detail)
                logged_codes.add(failure.code)
        await asyncio.sleep(POLL_UNREACHABLE_SECONDS if failures[0].code == "server-unreachable" else POLL_SECONDS)
    example = example_of(settings, local_url(settings))
    for command in filter(None, (example.make_keys, example.send)):
        print(f"Try it: {command}", flush=True)
