<<<<<<< HEAD
"""python -m api: the HTTP door and the windows, and who may use them."""

import gc
import ipaddress
import resource
import sys

import click
import uvicorn
from starlette.applications import Starlette

from api.app import create_app
from api.commands.key import key
from api.commands.tenant import tenant
from api.http.protocol import protocol_of
from streams.runtime import SettingError, Settings, configure_logging, load_settings

SECURITY_HEADERS = [("x-content-type-options", "nosniff"), ("cache-control", "no-store"), ("referrer-policy", "no-referrer")]
DRAIN_SECONDS = 4  # honcho kills after five


@click.group(invoke_without_command=True)
@click.pass_context
def main(context: click.Context) -> None:
    """The HTTP API, the keys that it takes, and what tenants may send. Without a command it serves.

    Settings come from the environment or .env; README.md lists them.
    """
    configure_logging()
    if context.invoked_subcommand is None:
        context.invoke(run)


@main.command()
def run() -> None:
    """Serve the HTTP API: POST /api/events, and what reads the tables.

    HOST and PORT say where, REDIS_URL and DATABASE_URL what it uses, AUTH who may. Several processes may serve the same
    log and tables.
    """
    try:
        settings = load_settings()
        refuse_open_to_all(settings)
        app = create_app(settings)
    except SettingError as error:
        sys.exit(str(error))
    serve(app, settings)


main.add_command(key)
main.add_command(tenant)


def refuse_open_to_all(settings: Settings) -> None:
    """Raises SettingError when anybody who reaches this address could speak for any tenant, and nobody said it is meant."""
    if settings.auth == "open" and not settings.allow_open_access and not _is_loopback(settings.host):
        raise SettingError(
            "AUTH",
            f"is open and HOST is {settings.host!r}: whoever reaches this address could write and read as any tenant. "
            "Set AUTH=keys, or ALLOW_OPEN_ACCESS=1 if that is meant.",
        )


def _is_loopback(host: str) -> bool:
    """Whether an address is this machine's own; a name other than localhost may be anything."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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
        log_config=None,
        log_level="error",  # its warnings are about what outsiders send
        server_header=False,
        headers=SECURITY_HEADERS,
        proxy_headers=bool(settings.proxies),
        forwarded_allow_ips=[str(network) for network in settings.proxies],
        timeout_keep_alive=65,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        backlog=4096,
    )


def _raise_file_limit() -> None:
    """A connection is a file; the usual soft limit of 1,024 is soon reached."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
=======
"""`python -m api`, which is `penstock api`."""
>>>>>>> 9866110 (Commands live in commands/, and `penstock` runs them all)

from api.commands.main import main

if __name__ == "__main__":
    main()
