"""The group `penstock api`, which is `python -m api` too."""

import click

from api.commands.key import key
from api.commands.run import run
from api.commands.tenant import tenant
from streams.runtime import configure_logging


@click.group("api", invoke_without_command=True)
@click.pass_context
def main(context: click.Context) -> None:
    """The HTTP API, its keys, and what tenants may send.

    Without a command it serves. Settings come from the environment, then from .env.
    """
    configure_logging()
    if context.invoked_subcommand is None:
        context.invoke(run)


for command in (key, run, tenant):
    main.add_command(command)
