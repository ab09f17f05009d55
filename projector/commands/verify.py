"""`penstock projector verify`: whether the tables are what the log says."""

import click

from projector.commands.cli import Begin, opened, run_command
from projector.rebuild.verify import FROM_THE_START, Since, verify
from streams.runtime import Progress, Settings


@click.command("verify")
@click.option("--tenant", "tenants", multiple=True, help="Only this tenant; may be repeated.")
@click.option("--since", type=Begin(), default=FROM_THE_START, help="Compare only from this position, or time of receipt, on.")
def verify_command(tenants: tuple[str, ...], since: Since) -> None:
    """Replay the log and compare it with the tables.

    Every row is compared, and each difference is a line; then the exit status is 1. The replay goes to a scratch database in
    TMPDIR, which needs about the size of the tables. Nothing waits for it. For each tenant it also counts: rows, late
    duplicates, quarantined, dropped and erased records must add up to the checkpoint.

    --since saves comparing, not replaying: tables are a fold of their log, so the log is read from its start in any case. From
    there on, it compares events and quarantine, sessions that have an event there, and checkpoints. A time, such as
    2026-11-20T12:00Z, stands for the first record of a tenant that was received then or later.
    """

    async def act(settings: Settings) -> int:
        differences = 0
        async with opened(settings) as (log, store):
            with Progress() as bars:
                stages = {name: bars.stage(name) for name in ("replaying", "comparing")}
                async for difference in verify(log, store, tenants=tenants, since=since, **stages):
                    differences += 1
                    print(difference)
        print(f"{differences} differences" if differences else "the tables are what the log says")
        return 1 if differences else 0

    run_command(act)
