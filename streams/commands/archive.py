"""`penstock streams archive`: cold records leave memory."""

import os
import secrets
import socket

import click

from streams.archive import Archive
from streams.commands.cli import COMMAND_SECONDS, open_log
from streams.connection import Connection
from streams.log import Log
from streams.runtime.cli import run_command, stop_event, wait_for_signal
from streams.runtime.settings import Settings
from streams.tiering import Archiver


@click.command()
@click.option("--once", is_flag=True, help="Archive what is cold now, and end; for cron.")
def archive(once: bool) -> None:
    """Move cold records from memory to the archive.

    A record is cold when every projector has applied it, and it is older than HOT_SECONDS or not among the newest HOT_RECORDS of
    its tenant. ARCHIVE_URL gets Parquet files. Several of these may run: each tenant is archived by one of them at a time.
    Interrupt it at any moment. With ARCHIVE_URL=none this command only waits.
    """

    async def act(settings: Settings) -> int:
        if not settings.archive:
            await wait_for_signal("ARCHIVE_URL is none; nothing is archived")
            return 0
        os.nice(10)  # requests that wait for an answer come first
        return await (_archive_once(settings) if once else _archive_until_stopped(settings))

    run_command(act)


async def _archive_once(settings: Settings) -> int:
    async with open_log(settings) as log:
        archived = await _archiver(log, settings).run_once()
    print(f"archived {archived.records} records; {archived.trimmed} left the server")
    for tenant, reason in archived.stuck.items():
        print(f"{tenant} is not archived: {reason}")
    return 1 if archived.stuck else 0


async def _archive_until_stopped(settings: Settings) -> int:
    # A server that is away is waited for: it may start together with this process.
    async with Log(Connection(settings.log_url, budget_seconds=COMMAND_SECONDS), archive_url=settings.archive) as log:
        await _archiver(log, settings).run(stop_event())
    return 0


def _archiver(log: Log, settings: Settings) -> Archiver:
    return Archiver(
        log,
        Archive(settings.archive),
        lease_owner=f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}",
        hot_seconds=settings.hot_seconds,
        hot_records=settings.hot_records,
    )
