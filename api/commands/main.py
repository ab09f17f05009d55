"""The command group `penstock api`, also `python -m api`."""

import click

from api.commands.key import key
from api.commands.run import run
from api.commands.tenant import tenant
from streams.runtime import configure_logging


@click.group("api", invoke_without_command=True)
@click.pass_context
def main(context: click.Context) -> None:
    """Serve the HTTP API; manage keys and tenants.

    Without a command, this serves the API. Settings come from the environment, then from .env.
    """
    configure_logging()
    if context.invoked_subcommand is None:
        context.invoke(run)


for command in (key, run, tenant):
    main.add_command(command)
