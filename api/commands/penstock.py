"""The command `penstock`, with the commands of each package."""

import click

from api.commands.main import main as api_commands
from api.commands.run_all import run
from projector.commands import projector_commands
from streams.commands import streams_commands


@click.group("penstock")
@click.version_option(package_name="penstock", prog_name="penstock")
def main() -> None:
    """Take events over HTTP; never lose or double one.

    `penstock run` starts everything on this machine. Settings come from the environment, then from .env.
    """


for command in (api_commands, projector_commands, run, streams_commands):
    main.add_command(command)
