"""python -m streams group: who reads the logs, and the end of a group that nobody uses."""

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

import click

from streams.connection import Connection
from streams.groups import GroupAlive, destroy, groups
from streams.log import Log
from streams.runtime.cli import COMMAND_SECONDS, KNOWN_ERRORS, settings_or_exit
from streams.runtime.settings import Settings


@click.group()
def group() -> None:
    """The groups that read the logs, one for each database of tables. Records stay in memory until all have applied them."""


@group.command("list")
def list_command() -> None:
    """Show each group, and how far it is behind: what it has not applied holds back the archive."""
    _ended_by(_list(settings_or_exit()))


async def _list(settings: Settings) -> None:
    async with _log_of(settings) as log:
        for one in await groups(log):
            print(f"{one.name}: {one.records} records behind, of {one.logs} logs")


@group.command("forget")
@click.argument("name", metavar="GROUP")
@click.option("--yes", is_flag=True, help="Do not ask.")
def forget_command(name: str, yes: bool) -> None:
    """Forget GROUP, of a database that is not used any more. One that a projector uses is refused, which takes ten seconds.

    Nothing is lost by it: a database that comes back reads on from its checkpoints, in a group that is made anew.
    """
    settings = settings_or_exit()
    _ended_by(_forget(settings, name, yes))


async def _forget(settings: Settings, name: str, yes: bool) -> None:
    async with _log_of(settings) as log:
        found = {one.name: one for one in await groups(log)}
        if name not in found:
            sys.exit(f"There is no group {name}; there are {', '.join(found) or 'none'}.")
        if not yes:
            click.confirm(f"Forget {name}, which is {found[name].records} records behind?", abort=True)
        print(f"forgotten: {name}, of {await destroy(log, name)} logs")


def _log_of(settings: Settings) -> Log:
    return Log(Connection(settings.log_url, budget_seconds=COMMAND_SECONDS))


def _ended_by(act: Coroutine[Any, Any, None]) -> None:
    try:
        asyncio.run(act)
    except (*KNOWN_ERRORS, GroupAlive) as error:
        sys.exit(f"{str(error).rstrip('.')}.")
    except KeyboardInterrupt:
        sys.exit(130)
