"""`penstock projector copy` and `adopt`: the tables as a file."""

import sys

import click

from projector.backup.tables import adopt_tables, copy_tables
from projector.commands.cli import run_command
from streams.runtime import Progress, Settings


@click.command("copy")
@click.argument("file", type=click.Path(dir_okay=False))
def copy_command(file: str) -> None:
    """Copy the tables to FILE, while everything runs.

    FILE must not exist yet. It gets rows, keys, limits and the list of deleted tenants, all of one moment. It waits for a
    rebuild or an erasure that is running, and none begins meanwhile. `penstock projector backup` does this, and copies the logs.
    """

    async def act(settings: Settings) -> None:
        with Progress("copying tables", unit="bytes") as show:
            size_bytes = await copy_tables(settings, file, show)
        print(copied_words(size_bytes), file=sys.stderr)

    run_command(act)


@click.command("adopt")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
def adopt_command(file: str) -> None:
    """Put FILE, a copy of the tables, in their place.

    FILE stays. Tables that have rows are never written over; tables that are this copy, or a later state of it, are left as
    they are. Processes that have the tables open notice. `penstock projector restore` does this, and restores the logs.
    """

    async def act(settings: Settings) -> None:
        print(adopted_words(await adopt_tables(settings, file)), file=sys.stderr)

    run_command(act)


def copied_words(size_bytes: int) -> str:
    """What a copy did."""
    return f"copied: the tables, {size_bytes:,} bytes"


def adopted_words(adopted: bool) -> str:
    """What an adoption did."""
    return "adopted: the tables are those of the copy" if adopted else "the tables of the copy are there"
