"""python -m api: the HTTP door and the windows."""

import gc
import logging
import resource
import sys

import click
import uvicorn
from starlette.applications import Starlette

from api.app import create_app
from api.protocol import protocol_of
from streams import SettingError, Settings, load_settings

DRAIN_SECONDS = 4  # honcho kills after five


@click.command()
def main() -> None:
    """Serve the HTTP API: POST /api/events, and what reads the tables.

    Settings come from the environment or .env: HOST and PORT say where, REDIS_URL and DATABASE_URL what it uses;
    README.md lists them all. Several processes may serve the same log and tables.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        settings = load_settings()
    except SettingError as error:
        sys.exit(str(error))
    serve(create_app(settings), settings)


def serve(app: Starlette, settings: Settings) -> None:
    """Serve an application as Penstock's is served, until SIGTERM or SIGINT."""
    _raise_file_limit()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # requests are many small objects that hold no cycles
    uvicorn.run(
        app,
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
        timeout_graceful_shutdown=DRAIN_SECONDS,
        backlog=4096,
    )


def _raise_file_limit() -> None:
    """A connection is a file; the usual soft limit of 1,024 is soon reached."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
