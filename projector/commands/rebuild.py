"""`penstock projector rebuild` and `rollback`."""

import click

from projector import rebuild as rebuilding
from projector.commands.cli import opened, run_command
from projector.rebuild import Rebuilt
from streams.runtime import Progress, Settings


@click.command()
@click.option("--tenant", "tenants", multiple=True, help="Only this tenant, in one transaction; may be repeated.")
@click.option("--accept-loss", is_flag=True, help="Rebuild although the log misses records that the tables have or had.")
def rebuild(tenants: tuple[str, ...], accept_loss: bool) -> None:
    """Rebuild the tables from the log, while everything runs.

    Shadow tables are filled from the log and take the place of the live tables in one transaction; the live tables are kept as
    the previous tables, for rollback. Interrupt it at any moment and start it again. When the log misses records, the rebuild is
    refused, and their positions are named.
    """

    async def act(settings: Settings) -> None:
        async with opened(settings) as (log, store):
            with Progress("rebuilding") as progress:
                rebuilt = await rebuilding.rebuild(log, store, tenants=tenants, accept_loss=accept_loss, progress=progress)
        print(summary_of("rebuilt", rebuilt))

    run_command(act)


@click.command()
def rollback() -> None:
    """Bring back the tables from before the last rebuild.

    They are caught up with the log first. The live tables become the previous tables.
    """

    async def act(settings: Settings) -> None:
        async with opened(settings) as (log, store):
            with Progress("catching up") as progress:
                rebuilt = await rebuilding.rollback(log, store, progress=progress)
        print(summary_of("rolled back", rebuilt))

    run_command(act)


def summary_of(verb: str, rebuilt: Rebuilt) -> str:
    """What a rebuild did, in one line."""
    rate = rebuilt.records / rebuilt.seconds if rebuilt.seconds else 0
    return f"{verb}: {rebuilt.tenants} tenants, {rebuilt.records} records in {rebuilt.seconds:.1f} s ({rate:,.0f} records/s)"
