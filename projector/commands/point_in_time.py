"""`penstock projector at`: the tables as they were."""

import click

from projector.commands.cli import Moment, opened, run_command
from projector.commands.rebuild import summary_of
from projector.rebuild import point_in_time
from streams.runtime import Progress, Settings


@click.command("at")
@click.argument("time", type=Moment(), required=False)
@click.option(
    "--position", type=click.IntRange(min=1), help="Stop after this position, instead of at a TIME; needs one --tenant."
)
@click.option("--tenant", "tenants", multiple=True, help="Only this tenant; may be repeated.")
@click.option("--out", type=click.Path(dir_okay=False), required=True, help="The SQLite file to make; it must not exist yet.")
@click.option("--accept-loss", is_flag=True, help="As in rebuild: go on although the log misses records.")
def at_command(time: int | None, position: int | None, tenants: tuple[str, ...], out: str, accept_loss: bool) -> None:
    """Make a database of the tables as they were at TIME.

    TIME looks like 2026-11-20T12:00Z. The database has the same tables and indexes, and any program that reads SQLite can read
    it. Penstock keeps running meanwhile.

    Each tenant's log is applied up to, but not including, its first record that was received at TIME or later. Times of receipt
    come from the clocks of the API processes, so a later record in the log can have an earlier time. Such a record is left out,
    too.
    """
    if (time is None) == (position is None) or (position is not None and len(tenants) != 1):
        raise click.UsageError("give a TIME, or --position and one --tenant")

    async def act(settings: Settings) -> None:
        cut = point_in_time.Cut(time, position)
        async with opened(settings) as (log, store):
            with Progress("replaying") as progress:
                rebuilt = await point_in_time.write(
                    log, store, out, cut, tenants=tenants, accept_loss=accept_loss, progress=progress
                )
        print(summary_of("made", rebuilt))

    run_command(act)
