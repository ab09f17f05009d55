"""python -m projector copy and adopt: the tables into a file of their own, and back."""

import asyncio
import sys

import click

from projector.commands.cli import COMMAND_SECONDS, run_command
from projector.store import FileStore, RebuildRunning, Store, adopt, open_store
from streams.runtime import Progress, Settings

PAUSE_SECONDS = 0.1


@click.command("copy")
@click.argument("file", type=click.Path(dir_okay=False))
def copy_command(file: str) -> None:
    """Copy the database of the tables to FILE, which must not be there yet, while everything runs.

    With rows, keys, limits and who was erased, all of one moment. It waits for a rebuild or an erasure that is running, and
    none begins meanwhile. `python -m projector backup` does this, and copies the logs.
    """

    async def act(settings: Settings) -> int:
        gap_seconds = settings.session_gap_seconds
        with open_store(settings.tables_url, cache_mib=settings.sqlite_cache_mib, session_gap_seconds=gap_seconds) as store:
            size = await _copy(store, file)
        print(f"copied: the tables, {size:,} bytes", file=sys.stderr)
        return 0

    run_command(act)


async def _copy(store: Store, file: str) -> int:
    assert isinstance(store, FileStore)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + COMMAND_SECONDS
    while True:
        try:
            with store.rebuilding(), Progress("copying tables", unit="bytes") as show:
                copying = asyncio.create_task(asyncio.to_thread(store.copy, file))
                while not (await asyncio.wait([copying], timeout=PAUSE_SECONDS))[0]:
                    show(*store.copied_bytes(file))
                return await copying
        except RebuildRunning:
            if loop.time() > deadline:
                raise
        await asyncio.sleep(PAUSE_SECONDS)


@click.command("adopt")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
def adopt_command(file: str) -> None:
    """Put a copy of tables, FILE, where the tables are; FILE stays.

    TableSet that have rows are never written over; those that are this copy, or have gone on from it, are left as they are.
    Whoever has the tables open notices. `python -m projector restore` does this, and puts the logs back.
    """

    async def act(settings: Settings) -> int:
        adopted = await asyncio.to_thread(adopt, file, settings.tables_url)
        print("adopted: the tables are those of the copy" if adopted else "the tables of the copy are there", file=sys.stderr)
        return 0

    run_command(act)
