"""The group `penstock streams`, which is `python -m streams` too."""

import click

from streams.commands.archive import archive
from streams.commands.erase import erase
from streams.commands.group import group
from streams.commands.recover import recover
from streams.commands.serve import serve_command
from streams.commands.settings import settings_command
from streams.commands.tail import tail
from streams.commands.transfer import export_command, import_command
from streams.commands.verify import verify
from streams.runtime.logging_setup import configure_logging


@click.group("streams")
def main() -> None:
    """The log: its server, its archive, its records.

    Settings come from the environment, then from .env.
    """
    configure_logging()


for command in (
    archive,
    erase,
    export_command,
    group,
    import_command,
    recover,
    serve_command,
    settings_command,
    tail,
    verify,
):
    main.add_command(command)
