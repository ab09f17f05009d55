"""python -m projector: keep the tables level with the log, rebuild them, check them."""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket

import click
import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from projector.catch_up import catch_up, lagging_tenants
from projector.commands.backup import backup, restore
from projector.commands.cli import Begin, Moment, opened, run_command
from projector.commands.quarantine import LEVEL_SECONDS, quarantine
from projector.commands.tables import adopt_command, copy_command
from projector.divergence import DeletedTenantHasLog, LogDiffers
from projector.live.worker import Worker
from projector.rebuild import point_in_time
from projector.rebuild import rebuild as rebuilding
from projector.rebuild.rebuild import Rebuilt
from projector.rebuild.verify import FROM_THE_START, Since, verify
from projector.status import TenantStatus, status
from projector.store import FileStore, StoreReplaced, StoreUnavailable
from streams.errors import Gap
from streams.runtime import Progress, Settings, configure_logging

log_of_projector = logging.getLogger("projector")
REOPEN_SECONDS = 1.0


@click.group()
def main() -> None:
    """The tables: keep them level with the log, rebuild them, compare them.

    Settings come from the environment or .env; README.md lists them.
    """
    configure_logging()


for command in (adopt_command, backup, copy_command, quarantine, restore):
    main.add_command(command)


@main.command()
def run() -> None:
    """Apply records to the tables until SIGTERM or Ctrl-C; any number of these may run at once.

    A tenant is taken by one at a time; what one that died or hangs had taken goes to another when its lease ends
    (LEASE_SECONDS). Exactly once is decided by the checkpoint that moves with the rows, never by the lease.
    """
    run_command(_work)


@main.command()
@click.option("--tenant", "tenants", multiple=True, help="Only this tenant, in one transaction; may be repeated.")
@click.option("--accept-loss", is_flag=True, help="Rebuild although the log misses records that the tables have or had.")
def rebuild(tenants: tuple[str, ...], accept_loss: bool) -> None:
    """Build the tables again from the log, while everything runs.

    Shadow tables are filled from the log and take the place of the live ones in one transaction; the live ones stay as
    the previous. Interrupt it at any moment and start it again. A log that misses records is refused, with their
    positions.
    """

    async def act(settings: Settings) -> int:
        async with opened(settings) as (log, store):
            with Progress("rebuilding") as progress:
                done = await rebuilding.rebuild(log, store, tenants=tenants, accept_loss=accept_loss, progress=progress)
        return _report("rebuilt", done)

    run_command(act)


@main.command()
def rollback() -> None:
    """Bring back the tables that were live before the last rebuild, caught up with the log."""

    async def act(settings: Settings) -> int:
        async with opened(settings) as (log, store):
            with Progress("catching up") as progress:
                done = await rebuilding.rollback(log, store, progress=progress)
        return _report("rolled back", done)

    run_command(act)


@main.command()
def vacuum() -> None:
    """Write the database file anew, so that nothing that was deleted is left in it, nor in its WAL.

    What `python -m streams erase` said is carried out first. Projectors wait meanwhile, and it needs the room of the file twice
    more. Copies of the file are whoever's who made them.
    """

    async def act(settings: Settings) -> int:
        late = []
        async with opened(settings) as (log, store):
            with store.rebuilding():
                store.drop_leftovers()
                for tenant in await lagging_tenants(log, store):
                    try:
                        if not await catch_up(log, store, tenant, seconds=LEVEL_SECONDS):
                            late.append(tenant)
                    except (LogDiffers, DeletedTenantHasLog, Gap) as error:
                        late.append(tenant)
                        print(error)
                assert isinstance(store, FileStore)
                store.vacuum()
        for tenant in late:
            print(f"The tables of {tenant} are not level with its log; what it says last is not carried out yet.")
        print("The database file was written anew.")
        return 1 if late else 0

    run_command(act)


@main.command("verify")
@click.option("--tenant", "tenants", multiple=True, help="Only this tenant; may be repeated.")
@click.option("--since", type=Begin(), default=FROM_THE_START, help="Compare only from this position, or time of receipt, on.")
def verify_command(tenants: tuple[str, ...], since: Since) -> None:
    """Replay the log and compare it with the tables row by row; exit 1 and say what differs, if anything does.

    The replay goes to a scratch database in TMPDIR, which needs about the room of the tables. It holds back nobody. For each
    tenant it also counts the rows: with late duplicates, quarantined, dropped and erased they are what the checkpoint says.

    --since saves comparing, not replaying: tables are a fold of their log, so it is read from its start all the same. Compared
    are events and quarantine from there on, sessions that have an event there, and checkpoints. A time, such as
    2026-11-20T12:00Z, is where the first record of a tenant is that was received then or later.
    """

    async def act(settings: Settings) -> int:
        differences = 0
        async with opened(settings) as (log, store):
            with Progress() as bars:
                stages = {name: bars.stage(name) for name in ("replaying", "comparing")}
                async for difference in verify(log, store, tenants=tenants, since=since, **stages):
                    differences += 1
                    print(difference)
        print(f"{differences} differences" if differences else "the tables are what the log says")
        return 1 if differences else 0

    run_command(act)


@main.command("at")
@click.argument("time", type=Moment(), required=False)
@click.option("--position", type=click.IntRange(min=1), help="Up to this position, of the one --tenant, instead of a time.")
@click.option("--tenant", "tenants", multiple=True, help="Only this tenant; may be repeated.")
@click.option("--out", type=click.Path(dir_okay=False), required=True, help="The SQLite file to make; it must not be there yet.")
@click.option("--accept-loss", is_flag=True, help="As in rebuild: go on although the log misses records.")
def at_command(time: int | None, position: int | None, tenants: tuple[str, ...], out: str, accept_loss: bool) -> None:
    """Make a database of the tables as they were at TIME, such as 2026-11-20T12:00Z, or at a position, while everything runs.

    It has the same tables and indexes, and is readable by whatever reads SQLite. At a time, each tenant's log ends before its
    first record that was received then or later. Times of receipt are those of the API processes' clocks and need not rise from
    record to record: none of that time or later is in the tables, and one that is behind the first such is not, either.
    """
    if (time is None) == (position is None) or (position is not None and len(tenants) != 1):
        raise click.UsageError("give a TIME, or --position and one --tenant")

    async def act(settings: Settings) -> int:
        async with opened(settings) as (log, store):
            with Progress("replaying") as progress:
                cut = point_in_time.Cut(time, position)
                done = await point_in_time.write(
                    log, store, out, cut, tenants=tenants, accept_loss=accept_loss, progress=progress
                )
        return _report("made", done)

    run_command(act)


@main.command("status")
@click.option("--json", "as_json", is_flag=True, help="One JSON array, for machines.")
def status_command(as_json: bool) -> None:
    """Show each tenant's records, rows, sessions and lag, what the door did not accept, and what is stuck and why.

    Records are rows, late duplicates, quarantined, dropped (the notes that say so included), erased, or lag.
    """

    async def act(settings: Settings) -> int:
        async with opened(settings) as (log, store):
            found = await status(log, store)
        if as_json:
            print(msgspec.json.encode(found).decode())
        else:
            for title, columns in TABLES.items():
                Console().print(_table(title, columns, found))
            for one in found:
                if one.stuck:
                    print(f"{one.tenant} is stuck: {one.stuck}")
        return 0

    run_command(act)


async def _work(settings: Settings) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    replaced = False
    while not stop.is_set():
        try:
            await _apply_until(stop, settings)
        except StoreUnavailable as error:
            replaced |= isinstance(error, StoreReplaced)
            if not replaced:
                raise
            log_of_projector.warning("%s", error)  # or it is not there whole yet
            with contextlib.suppress(TimeoutError):  # until whoever does it is done: the WAL beside the file goes, too
                await asyncio.wait_for(stop.wait(), REOPEN_SECONDS)
    return 0


async def _apply_until(stop: asyncio.Event, settings: Settings) -> None:
    """Run a worker over the database file that is there now. Raises StoreReplaced when it is another."""
    async with opened(settings, settings.lease_seconds, cache_mib=settings.sqlite_cache_mib) as (log, store):
        for warning in store.warnings():
            log_of_projector.warning("%s", warning)
        if store.session_gap_us() != store.new_set_session_gap_us:
            log_of_projector.warning(
                "SESSION_GAP_SECONDS is %g, the tables were made with %g and keep it until `python -m projector rebuild`",
                store.new_set_session_gap_us / 1_000_000,
                store.session_gap_us() / 1_000_000,
            )
        lease_owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        worker = Worker(
            log,
            store,
            lease_owner=lease_owner,
            lease_seconds=settings.lease_seconds,
            batch_records=settings.projector_batch_records,
            batch_bytes=settings.projector_batch_bytes,
        )
        log_of_projector.info("%s applies %s to %s", lease_owner, settings.log_url, store.location)
        await worker.run(stop)


def _report(verb: str, done: Rebuilt) -> int:
    rate = done.records / done.seconds if done.seconds else 0
    print(f"{verb}: {done.tenants} tenants, {done.records} records in {done.seconds:.1f} s ({rate:,.0f} records/s)")
    return 0


TABLES = {  # in two, so that both fit a terminal of 80 columns
    "in the tables": {
        "records": "records",
        "rows": "rows",
        "sessions": "sessions",
        "lag": "lag_records",
        "lag s": "lag_seconds",
        "late\ndupl.": "late_duplicates",
        "quaran-\ntined": "quarantined",
        "dropped": "dropped",
        "erased": "erased",
    },
    "at the door": {
        "accepted": "records",
        "duplicate": "duplicate",
        "conflict": "conflict",
        "rejected": "rejected",
        "limited": "limited",
    },
}


def _table(title: str, columns: dict[str, str], found: list[TenantStatus]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0, title=title, title_justify="left", title_style="bold")
    table.add_column("tenant", overflow="fold", min_width=12)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        values = [getattr(one, field) for field in columns.values()]
        table.add_row(one.tenant, *(f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" for value in values))
    return table


if __name__ == "__main__":
    main()
