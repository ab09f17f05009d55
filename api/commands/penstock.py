"""The command `penstock`, with the commands of each package."""

from importlib import import_module

import click

PLACES = {
    "api": ("api.commands.main", "main"),
    "projector": ("projector.commands", "projector_commands"),
    "run": ("api.commands.run_all", "run"),
    "streams": ("streams.commands", "streams_commands"),
}


class _LoadedOnUse(click.Group):
    """A group that imports a command on first use.

    So `penstock streams` starts without the API.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(PLACES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in PLACES:
            return None
        module, name = PLACES[cmd_name]
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group("penstock", cls=_LoadedOnUse)
@click.version_option(package_name="penstock", prog_name="penstock")
def main() -> None:
    """Take events over HTTP; never lose or double one.

    `penstock run` starts everything on this machine. Settings come from the environment, then from .env.
    """
