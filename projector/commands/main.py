"""The command group `penstock projector`, also `python -m projector`."""

import click

from projector.commands.backup import backup, restore
from projector.commands.point_in_time import at_command
from projector.commands.quarantine import quarantine
from projector.commands.rebuild import rebuild, rollback
from projector.commands.run import run
from projector.commands.status import status_command
from projector.commands.tables import adopt_command, copy_command
from projector.commands.vacuum import vacuum
from projector.commands.verify import verify_command
from streams.runtime import configure_logging


@click.group("projector")
def main() -> None:
    """Apply the log to the tables; rebuild, verify, back up.

    Settings come from the environment, then from .env.
    """
    configure_logging()


for command in (
    adopt_command,
    at_command,
    backup,
    copy_command,
    quarantine,
    rebuild,
    restore,
    rollback,
    run,
    status_command,
    vacuum,
    verify_command,
):
    main.add_command(command)
