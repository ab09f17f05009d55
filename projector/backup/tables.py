"""Copy the tables to a file for a backup, and put them back."""

import asyncio
import contextlib
import threading

from projector.store import FileStore, RebuildRunning, Store, adopt, open_store
from streams.errors import PenstockError
from streams.runtime import Settings, Show

WAIT_SECONDS = 30.0  # for a rebuild or an erasure that is running
PAUSE_SECONDS = 0.1


class NoFile(PenstockError):
    """These tables are not in a file, so no file can be copied."""


async def copy_tables(settings: Settings, file: str, show: Show) -> int:
    """Copy the tables to a new file; return its size in bytes.

    Penstock keeps running meanwhile. `show` gets the number of copied bytes and an estimate of the total. Cancel it at any
    moment. Raises NoFile, OutputExists, StoreUnavailable, and RebuildRunning if a rebuild or an erasure still runs after
    WAIT_SECONDS.
    """
    gap_seconds = settings.session_gap_seconds
    with open_store(settings.tables_url, cache_mib=settings.sqlite_cache_mib, session_gap_seconds=gap_seconds) as store:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + WAIT_SECONDS
        while True:
            try:
                with store.rebuilding():
                    return await _copy(store, file, show)
            except RebuildRunning:
                if loop.time() > deadline:
                    raise
            await asyncio.sleep(PAUSE_SECONDS)


async def _copy(store: Store, file: str, show: Show) -> int:
    """Copy in a thread, which has ended when this returns or raises.

    The caller closes the store, and its connections with it. A cancelled copy stops and leaves no file.
    """
    if not isinstance(store, FileStore):
        raise NoFile(f"these tables are not in a file: {store.location}")
    stop = threading.Event()
    copying = asyncio.get_running_loop().run_in_executor(None, store.copy, file, stop.is_set)
    try:
        while not (await asyncio.wait([copying], timeout=PAUSE_SECONDS))[0]:
            show(*store.copied_bytes(file))
    finally:
        stop.set()
        while not copying.done():
            with contextlib.suppress(asyncio.CancelledError):  # of a second Ctrl-C; what led here is raised
                await asyncio.wait([copying])
        copying.exception()  # or asyncio logs that it was not read
    return copying.result()


async def adopt_tables(settings: Settings, file: str) -> bool:
    """Put a copy of the tables in their place.

    Returns False, and changes nothing, if the tables already are that copy or a later state of it. Raises TablesNotEmpty,
    NotACopy, OutputExists, StoreUnavailable.
    """
    return await asyncio.to_thread(adopt, file, settings.tables_url)
