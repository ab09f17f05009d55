"""`penstock streams verify`: whether every log is whole."""

from collections.abc import Sequence

import click

from streams.commands.cli import open_log
from streams.runtime.cli import run_command
from streams.runtime.settings import Settings
from streams.tiering.verify import problems


@click.command()
@click.option("--tenant", "tenants", multiple=True, help="Only this tenant; may be repeated.")
def verify(tenants: tuple[str, ...]) -> None:
    """Read every log from first to last, and report damage.

    Of the archive it checks the manifest and the manifest before it, the size and digest of each segment, and its records one
    after another. Each line names something that is damaged or missing; then the exit status is 1.
    """
    run_command(lambda settings: _verify(settings, tenants))


async def _verify(settings: Settings, tenants: Sequence[str]) -> int:
    count = 0
    async with open_log(settings) as log:
        async for problem in problems(log, tenants):
            count += 1
            print(problem)
    print(f"{count} problem{'s' * (count > 1)}" if count else "every log is whole")
    return 1 if count else 0
