"""The tables of a backup: copied to a file, and put back."""

import asyncio

from projector.store import FileStore, RebuildRunning, Store, adopt, open_store
from streams.errors import PenstockError
from streams.runtime import Settings, Show

WAIT_SECONDS = 30.0  # for a rebuild or an erasure that is running
PAUSE_SECONDS = 0.1


class NoFile(PenstockError):
    """These tables are not in a file, and cannot be copied as one."""


async def copy_tables(settings: Settings, file: str, show: Show) -> int:
    """Copy the tables to a new file; its size in bytes.

    Everything runs meanwhile. `show` gets how many bytes are copied. Raises NoFile, RebuildRunning, OutputExists,
    StoreUnavailable.
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
    if not isinstance(store, FileStore):
        raise NoFile(f"these tables are not in a file: {store.location}")
    copying = asyncio.create_task(asyncio.to_thread(store.copy, file))
    while not (await asyncio.wait([copying], timeout=PAUSE_SECONDS))[0]:
        show(*store.copied_bytes(file))
    return await copying


async def adopt_tables(settings: Settings, file: str) -> bool:
    """Put a copy where the tables are, unless they are that copy.

    Returns False when the tables are that copy already, or a later state of it. Raises TablesNotEmpty, NotACopy, OutputExists,
    StoreUnavailable.
    """
    return await asyncio.to_thread(adopt, file, settings.tables_url)
