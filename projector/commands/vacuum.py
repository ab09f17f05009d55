"""`penstock projector vacuum`: the database file without what was deleted."""

import click

from projector.catch_up import catch_up, lagging_tenants
from projector.commands.cli import file_store, opened, run_command
from projector.commands.quarantine import LEVEL_SECONDS
from projector.divergence import DeletedTenantHasLog, LogDiffers
from streams.errors import Gap
from streams.runtime import Settings


@click.command()
def vacuum() -> None:
    """Rewrite the database file, without what was deleted.

    Afterwards nothing that was deleted is left in the file, nor in its WAL. Erasures that the tables have not applied yet are
    applied first. Projectors wait meanwhile. It needs free disk space of twice the file's size. Copies that you made of the file
    are not changed.
    """

    async def act(settings: Settings) -> int:
        late = []
        async with opened(settings) as (log, store):
            with store.rebuilding():
                store.drop_leftovers()
                for tenant in await lagging_tenants(log, store):
                    try:
                        if not await catch_up(log, store, tenant, seconds=LEVEL_SECONDS):
                            late.append(tenant)
                    except (LogDiffers, DeletedTenantHasLog, Gap) as error:
                        late.append(tenant)
                        print(error)
                file_store(store).vacuum()
        for tenant in late:
            print(f"The tables of {tenant} lag behind its log; an erasure there is not applied yet.")
        print("The database file was rewritten.")
        return 1 if late else 0

    run_command(act)
