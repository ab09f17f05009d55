"""`penstock projector run`: the process that keeps the tables up to date."""

import asyncio
import contextlib
import logging
import os
import secrets
import socket

import click

from projector.commands.cli import run_command
from projector.live.worker import Worker
from projector.store import Store, StoreReplaced, StoreUnavailable, open_store
from streams import Connection, Log
from streams.runtime import Settings, stop_event

log_of_projector = logging.getLogger("projector")
REOPEN_SECONDS = 1.0


@click.command()
def run() -> None:
    """Apply records to the tables until SIGTERM or Ctrl-C.

    Any number of these may run. A tenant is leased to one projector at a time; when that projector dies or hangs, another one
    gets the tenant when the lease ends (LEASE_SECONDS). The checkpoint, which moves in the transaction that writes the rows,
    decides that each record is applied exactly once; the lease does not.
    """
    run_command(_run)


async def _run(settings: Settings) -> None:
    stop = stop_event()
    replaced = False
    while not stop.is_set():
        try:
            await _apply_until(stop, settings)
        except StoreUnavailable as error:
            replaced |= isinstance(error, StoreReplaced)
            if not replaced:
                raise
            log_of_projector.warning("%s", error)  # StoreReplaced, or the new file is not complete yet
            with contextlib.suppress(TimeoutError):  # the process that replaces it removes the WAL beside it, too
                await asyncio.wait_for(stop.wait(), REOPEN_SECONDS)


async def _apply_until(stop: asyncio.Event, settings: Settings) -> None:
    """Run a worker over the database that is there now.

    Raises StoreReplaced when another database takes its place.
    """
    gap_seconds = settings.session_gap_seconds
    with open_store(settings.tables_url, cache_mib=settings.sqlite_cache_mib, session_gap_seconds=gap_seconds) as store:
        async with Log(Connection(settings.log_url, budget_seconds=settings.lease_seconds), archive_url=settings.archive) as log:
            _warn(store)
            worker = _worker(settings, log, store)
            await worker.run(stop)


def _warn(store: Store) -> None:
    for warning in store.warnings():
        log_of_projector.warning("%s", warning)
    if store.session_gap_us() != store.new_set_session_gap_us:
        log_of_projector.warning(
            "SESSION_GAP_SECONDS is %g, the tables were made with %g and keep it until `penstock projector rebuild`",
            store.new_set_session_gap_us / 1_000_000,
            store.session_gap_us() / 1_000_000,
        )


def _worker(settings: Settings, log: Log, store: Store) -> Worker:
    lease_owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
    log_of_projector.info("%s applies %s to %s", lease_owner, settings.log_url, store.location)
    return Worker(
        log,
        store,
        lease_owner=lease_owner,
        lease_seconds=settings.lease_seconds,
        batch_records=settings.projector_batch_records,
        batch_bytes=settings.projector_batch_bytes,
    )
