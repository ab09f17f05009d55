"""`penstock streams group`: the consumer groups that read the logs."""

import click

from streams.commands.cli import open_log
from streams.errors import PenstockError
from streams.groups import destroy, groups
from streams.runtime.cli import run_command
from streams.runtime.settings import Settings


class NoSuchGroup(PenstockError):
    """No log has a consumer group of that name."""

    def __init__(self, name: str, names: list[str]) -> None:
        super().__init__(f"There is no group {name}; there are {', '.join(names) or 'none'}")


@click.group()
def group() -> None:
    """List consumer groups, or destroy a group.

    Each database of tables reads the logs in a group of its own. Records stay in memory until all groups have applied them.
    """


@group.command("list")
def list_command() -> None:
    """Show each group and its lag.

    The archive takes no record that a group has not applied.
    """

    async def act(settings: Settings) -> None:
        async with open_log(settings) as log:
            for entry in await groups(log):
                print(f"{entry.name}: lag of {entry.records} records, in {entry.logs} logs")

    run_command(act)


@group.command("destroy")
@click.argument("name", metavar="GROUP")
@click.option("--yes", is_flag=True, help="Do not ask.")
def destroy_command(name: str, yes: bool) -> None:
    """Destroy GROUP, of a database that is not used any more.

    A group that a projector uses is refused; to find that out takes ten seconds. No record is lost: when the database is used
    again, its projector makes a new group and reads on from its checkpoints.
    """

    async def act(settings: Settings) -> None:
        async with open_log(settings) as log:
            by_name = {entry.name: entry for entry in await groups(log)}
            if name not in by_name:
                raise NoSuchGroup(name, list(by_name))
            if not yes:
                click.confirm(f"Destroy {name}, which has a lag of {by_name[name].records} records?", abort=True)
            print(f"destroyed: {name}, in {await destroy(log, name)} logs")

    run_command(act)
