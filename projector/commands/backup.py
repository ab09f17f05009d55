"""`penstock projector backup` and `restore`."""

import sys
import time

import click

from projector.backup.create import create_backup
from projector.backup.folder import BackupFolder
from projector.backup.restore import BackupRestore
from projector.backup.tables import adopt_tables, copy_tables
from projector.commands.cli import run_command
from projector.commands.tables import adopted_words, copied_words
from streams.commands import open_log
from streams.runtime import Progress, Settings


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False))
def backup(directory: str) -> None:
    """Copy the tables and every log to DIR.

    Penstock keeps running meanwhile. DIR gets the tables with keys and limits, every log, and the list of deleted tenants. If DIR
    already holds a backup, its records are compared with the logs, and only new records are added. The backup is refused if the
    records differ. DIR remains the old backup until the new one is complete, so this command may be interrupted at any moment.
    """
    run_command(lambda settings: _backup(settings, directory))


async def _backup(settings: Settings, directory: str) -> None:
    started = time.monotonic()
    folder = BackupFolder(directory)
    with folder.locked(), Progress() as bars:
        async with open_log(settings) as log:
            show_tables = bars.stage("copying tables", unit="bytes")

            async def copy(path: str) -> None:
                print(copied_words(await copy_tables(settings, path, show_tables)), file=sys.stderr)

            created = await create_backup(log, folder, copy, bars.stage("copying logs"))
    seconds = time.monotonic() - started
    tenants, records = len(created.backup.tenants), created.backup.records
    print(f"backed up: {tenants} tenants, {records} records, {created.added} of them new, in {seconds:.1f} s")


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False))
def restore(directory: str) -> None:
    """Restore the backup in DIR to an empty server and DATA_DIR.

    Run this before the API accepts requests. All of DIR is checked first. Then DIR is compared with existing data: a log of the
    same tenant must have the same records, and tables must have no other rows than those of DIR. Records go to ARCHIVE_URL, or
    to the server if ARCHIVE_URL is `none`. Deduplication keys are set again for the rest of DEDUP_WINDOW_SECONDS. This command
    may be interrupted at any moment and started again.
    """
    run_command(lambda settings: _restore(settings, directory))


async def _restore(settings: Settings, directory: str) -> None:
    started = time.monotonic()
    folder = BackupFolder(directory)
    backup = folder.read()

    async def adopt(path: str) -> None:
        print(adopted_words(await adopt_tables(settings, path)), file=sys.stderr)

    async with open_log(settings) as log:
        backup_restore = BackupRestore(log, folder, dedup_window_seconds=settings.dedup_window_seconds)
        with Progress() as bars:
            await backup_restore.check(backup, bars.stage("checking the backup"))
            await backup_restore.compare(backup, bars.stage("comparing existing records"))
            written = await backup_restore.restore(backup, adopt, bars.stage("restoring"))
    seconds = time.monotonic() - started
    counts = f"{len(backup.tenants)} tenants, {backup.records} records, {backup.records - written} of them already there"
    print(f"restored: the backup of {backup.made_at}, {counts}, in {seconds:.1f} s")
