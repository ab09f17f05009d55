"""`penstock streams recover`: a server's data from the archive."""

import asyncio
from collections.abc import Sequence

import click

from streams.archive import Archive
from streams.commands.cli import open_log
from streams.errors import Gap, PenstockError, TenantDeleted
from streams.runtime.cli import run_command
from streams.runtime.settings import Settings
from streams.tiering import HistoryDiffers
from streams.tiering import recover as recover_tenant


class NoArchive(PenstockError):
    """ARCHIVE_URL is none; there is nothing to recover from."""


@click.command()
@click.option("--tenant", "tenants", multiple=True, help="Only this tenant; may be repeated.")
def recover(tenants: tuple[str, ...]) -> None:
    """Give a server that lost its data back from the archive.

    For a server that lost everything, or its deduplication keys. Each log goes on at the next position, and events that were
    received within DEDUP_WINDOW_SECONDS are answered `duplicate` when they are sent again. Run it before the API accepts
    anything. A log that has started again meanwhile is left as it is, and named.
    """
    run_command(lambda settings: _recover(settings, tenants))


async def _recover(settings: Settings, tenants: Sequence[str]) -> int:
    if not settings.archive:
        raise NoArchive()
    status = 0
    async with open_log(settings) as log:
        for tenant in tenants or await asyncio.to_thread(Archive(settings.archive).tenants):
            try:
                recovered = await recover_tenant(log, tenant, dedup_window_seconds=settings.dedup_window_seconds)
            except (HistoryDiffers, Gap, TenantDeleted) as error:  # of this tenant only; the others go on
                print(f"{tenant}: {error}")
                status = 1
            else:
                print(f"{tenant}: ends at position {recovered.last}; {recovered.dedup_keys} deduplication keys are set again")
    return status
