"""`penstock api run`: the process that serves HTTP."""

import gc
import ipaddress
import resource

import click
import uvicorn
from starlette.applications import Starlette

from api.app import create_app
from api.http.protocol import protocol_of
from streams.runtime import SettingError, Settings, command_settings, exit_with_sentence

SECURITY_HEADERS = [("x-content-type-options", "nosniff"), ("cache-control", "no-store"), ("referrer-policy", "no-referrer")]
DRAIN_SECONDS = 4  # `penstock run` kills this process after five


@click.command()
def run() -> None:
    """Serve the HTTP API.

    HOST and PORT say where the API listens. REDIS_URL names its log, DATABASE_URL its tables. AUTH says who may use it. Several
    processes may serve the same log and tables.
    """
    with exit_with_sentence():
        settings = command_settings()
        refuse_open_to_all(settings)
        app = create_app(settings)
    serve(app, settings)


def refuse_open_to_all(settings: Settings) -> None:
    """Raise SettingError when any program could act for any tenant.

    That is so when AUTH is open, other machines reach the address, and ALLOW_OPEN_ACCESS is not set.
    """
    if settings.auth == "open" and not settings.allow_open_access and not _is_loopback(settings.host):
        raise SettingError(
            "AUTH",
            f"is open and HOST is {settings.host!r}: every program that reaches this address could write and read as any "
            "tenant. Set AUTH=keys, or ALLOW_OPEN_ACCESS=1 if that is intended.",
        )


def _is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address.

    False for a name other than localhost, which may stand for any address.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve(app: Starlette, settings: Settings) -> None:
    """Serve an application until SIGTERM or SIGINT.

    The server has the limits and headers of Penstock's API.
    """
    _raise_file_limit()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # a request makes many small objects without reference cycles
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
    """Raise the limit on open files to the most that is allowed.

    Each connection is an open file, and the usual soft limit of 1,024 is soon reached.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
