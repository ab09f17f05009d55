"""python -m streams archive, verify and recover."""

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import Sequence

import click

from streams.connection import Connection
from streams.errors import Gap, TenantDeleted
from streams.log import Log
from streams.runtime.cli import COMMAND_SECONDS, KNOWN_ERRORS, settings_or_exit, stopping, wait_for_signal
from streams.runtime.settings import Settings
from streams.tiering.verify import problems


@click.command()
@click.option("--once", is_flag=True, help="Archive all that is cold now, and end; for cron.")
def archive(once: bool) -> None:
    """Move records that are cold from the server's memory to ARCHIVE_URL, as Parquet files.

    Cold is what every projector has applied and is older than HOT_SECONDS or beyond the newest HOT_RECORDS of its tenant.
    Several of these may run; each tenant has one at a time. Interrupt it at any moment. With ARCHIVE_URL=none it only waits.
    """
    settings = settings_or_exit()
    try:
        if not settings.archive:
            asyncio.run(wait_for_signal("ARCHIVE_URL is none; nothing is archived"))
        else:
            sys.exit(asyncio.run(_archive(settings, once)))
    except KNOWN_ERRORS as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


async def _archive(settings: Settings, once: bool) -> int:
    from streams.archive.store import Archive
    from streams.tiering.archiver import Archiver

    os.nice(10)  # whoever waits for an answer comes first
    lease_owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
    async with Log(Connection(settings.log_url, budget_seconds=COMMAND_SECONDS), archive_url=settings.archive) as log:
        archiver = Archiver(
            log,
            Archive(settings.archive),
            lease_owner=lease_owner,
            hot_seconds=settings.hot_seconds,
            hot_records=settings.hot_records,
        )
        if not once:
            await archiver.run(stopping())
            return 0
        done = await archiver.run_once()
    print(f"archived {done.records} records; {done.trimmed} left the server")
    for tenant, why in done.stuck.items():
        print(f"{tenant} is not archived: {why}")
    return 1 if done.stuck else 0


@click.command()
@click.option("--tenant", "tenants", multiple=True, help="Only this tenant; may be repeated.")
def verify(tenants: tuple[str, ...]) -> None:
    """Read every log and its archive from the first position to the last, and say what is damaged or missing; then exit 1.

    Of the archive: the manifest and the one before it, the size and digest of each segment, its records one after another.
    """
    try:
        sys.exit(asyncio.run(_verify(settings_or_exit(), tenants)))
    except KNOWN_ERRORS as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


async def _verify(settings: Settings, tenants: Sequence[str]) -> int:
    wrong = 0
    async with Log(Connection(settings.log_url, budget_seconds=COMMAND_SECONDS), archive_url=settings.archive) as log:
        async for problem in problems(log, tenants):
            wrong += 1
            print(problem)
    print(f"{wrong} problem{'s' * (wrong > 1)}" if wrong else "every log is whole")
    return 1 if wrong else 0


@click.command()
@click.option("--tenant", "tenants", multiple=True, help="Only this tenant; may be repeated.")
def recover(tenants: tuple[str, ...]) -> None:
    """Give a server back from the archive where each log ends, and which names were claimed within DEDUP_WINDOW_SECONDS.

    For a server that lost everything, or its `seen` keys: logs go on at the next position, and what is sent again is answered
    `duplicate`. Run it before the API accepts anything; a log that has begun anew meanwhile is left alone and named.
    """
    try:
        sys.exit(asyncio.run(_recover(settings_or_exit(), tenants)))
    except KNOWN_ERRORS as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


async def _recover(settings: Settings, tenants: Sequence[str]) -> int:
    if not settings.archive:
        sys.exit("ARCHIVE_URL is none; there is nothing to recover from.")
    from streams.archive.store import Archive  # not above: pyarrow takes half a second to load
    from streams.tiering.recover import HistoryDiffers
    from streams.tiering.recover import recover as recover_tenant

    status = 0
    async with Log(Connection(settings.log_url, budget_seconds=COMMAND_SECONDS), archive_url=settings.archive) as log:
        for tenant in tenants or await asyncio.to_thread(Archive(settings.archive).tenants):
            try:
                done = await recover_tenant(log, tenant, dedup_window_seconds=settings.dedup_window_seconds)
                print(f"{tenant}: ends at position {done.last}; {done.dedup_keys} names claimed again")
            except (HistoryDiffers, Gap, TenantDeleted) as error:
                print(f"{tenant}: {error}")
                status = 1
    return status
