"""python -m projector backup and restore: a consistent copy of everything, and everything stood up again from it."""

import asyncio
import os
import sys
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import click
from redis.exceptions import ResponseError

from projector.backup.create import LogLost, make
from projector.backup.folder import BackupRunning, DamagedBackup, Folder, NoBackup
from projector.backup.incremental_copy import RecordsDiffer
from streams import Connection, Log
from streams.errors import ArchiveMoved, LogFull, LogRefused, PenstockError, TenantDeleted
from streams.runtime import Progress, Settings
from streams.runtime.cli import COMMAND_SECONDS, KNOWN_ERRORS, settings_or_exit
from streams.transfer import LogDiffers, LogEndsBefore

ENDS = (
    *KNOWN_ERRORS, ArchiveMoved, BackupRunning, DamagedBackup, LogDiffers, LogEndsBefore, LogFull, LogLost,
    LogRefused, NoBackup, OSError, RecordsDiffer, ResponseError, TenantDeleted,
)  # fmt: skip


SAID = 1  # the exit status of a command that has said why


class TablesFailed(PenstockError):
    """The command for the tables failed."""

    def __init__(self, name: str, status: int) -> None:
        super().__init__("" if status == SAID else f"`python -m projector {name}` ended with status {status}")


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False))
def backup(directory: str) -> None:
    """Copy everything into DIR, while everything runs: the tables with keys and limits, every log whole, who was erased.

    A DIR that holds a backup is gone on with: only what is new is added, and what is there is compared with the logs; where
    they differ it is refused. It stays the backup it was until the new one is whole. Interrupt it at any moment.
    """
    _ended_by(_backup(settings_or_exit(), directory))


async def _backup(settings: Settings, directory: str) -> None:
    begun = time.monotonic()
    folder = Folder(directory)
    with folder.making() as lock:

        async def copy_tables(path: str) -> None:
            await _tables("copy", path, lock=[lock])

        async with _log_of(settings) as log:
            with Progress("copying logs") as show:
                try:
                    made = await make(log, folder, copy_tables, show)
                except RecordsDiffer as error:
                    sys.exit(f"{error}: it was rewritten, and must not live on there. Back up into another folder.")
    seconds = time.monotonic() - begun
    tenants, records = len(made.backup.tenants), made.backup.records
    print(f"backed up: {tenants} tenants, {records} records, {made.added} of them new, in {seconds:.1f} s")


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False))
def restore(directory: str) -> None:
    """Stand up what `backup` copied into DIR: on an empty server and an empty DATA_DIR, before the API accepts anything.

    All of DIR is checked first, and then what is there: logs of the same tenants must have the same records, and tables no
    rows but those of DIR. Records go to ARCHIVE_URL, or to the server if that is `none`; names are claimed again for what
    is left of DEDUP_WINDOW_SECONDS. Interrupt it at any moment and start it again.
    """
    _ended_by(_restore(settings_or_exit(), directory))


async def _restore(settings: Settings, directory: str) -> None:
    from projector.backup.restore import Recovery
    from streams.tiering import HistoryDiffers

    begun = time.monotonic()
    folder = Folder(directory)
    backup = folder.read()

    async def adopt_tables(path: str) -> None:
        await _tables("adopt", path)

    async with _log_of(settings) as log:
        recovery = Recovery(log, folder, dedup_window_seconds=settings.dedup_window_seconds)
        with Progress() as bars:
            await recovery.check(backup, bars.stage("checking the backup"))
            await recovery.compare(backup, bars.stage("comparing what is there"))
            try:
                written = await recovery.put_back(backup, adopt_tables, bars.stage("restoring"))
            except HistoryDiffers as error:
                sys.exit(f"{error}; somebody else writes to it.")
    seconds = time.monotonic() - begun
    said = f"{len(backup.tenants)} tenants, {backup.records} records, {backup.records - written} of them there already"
    print(f"restored: the backup of {backup.made_at}, {said}, in {seconds:.1f} s")


def _log_of(settings: Settings) -> Log:
    connection = Connection(settings.log_url, budget_seconds=COMMAND_SECONDS)
    return Log(connection, dedup_window_seconds=settings.dedup_window_seconds, archive_url=settings.archive)


async def _tables(*arguments: str, lock: Sequence[int] = ()) -> None:
    """Run a command of the projector, which alone knows the tables, with our settings. An orphan holds the lock, too."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "projector", *arguments, pass_fds=lock)
    try:
        if status := await process.wait():
            raise TablesFailed(arguments[0], status)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def _ended_by(act: Coroutine[Any, Any, None]) -> None:
    """Run a command; what is wrong with its folder or surroundings ends it with one sentence."""
    try:
        asyncio.run(act)
    except TablesFailed as error:
        sys.exit(f"{error}." if str(error) else SAID)
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}." if error.filename else f"{os.strerror(error.errno or 0)}.")
    except ENDS as error:
        sys.exit(f"{str(error).rstrip('.')}.")
    except KeyboardInterrupt:
        sys.exit(130)
