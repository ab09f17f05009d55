"""Erase a data subject from a tenant's log.

First, control records that say which records are erased are appended to the log. Then the bytes of those records are removed
from the server and the archive. A placeholder keeps the position of each erased record, so that readers find no gap.

A run may be killed at any moment. The next run finds the records that the control records name and that still have their bytes,
and erases these, too.
"""

import asyncio
import contextlib
import os
import secrets
import socket
import time
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from streams import control
from streams.archive import Archive, Erasure
from streams.erasure.append_only_file import rewrite_append_only_file
from streams.erasure.subject import Subject, SubjectSearch
from streams.erasure.suppression import suppress
from streams.errors import LogFull, LogRefused, LogUnavailable, PenstockError
from streams.event import Record
from streams.keys import keys_of
from streams.log import Log
from streams.runtime.failpoints import failpoint
from streams.runtime.progress import Show

LEASE_SECONDS, PAUSE_SECONDS = 30.0, 0.1
COPY_RECORDS, COPY_BYTES = 500, 256 * 1024  # of one script call, during which other calls wait
COPY_TRIES = 10
TABLES_WAIT_SECONDS = 1.0  # if no projector acknowledges a record for this long, none is running


class LeaseLost(PenstockError):
    """Another process has this tenant's archive lease now; run this again."""


class NoMemoryForRewrite(PenstockError):
    """The server's memory has no room for a second copy of this log.
    The log is unchanged; run this again with more memory. The records are erased from the tables all the same.
    """


class Rewritten(msgspec.Struct, frozen=True):
    """How much was rewritten.

    - `entries` is the number of records that were erased on the server.
    - `segments` is the number of segments of the archive that were rewritten.
    - `append_only_file` says whether this file was rewritten. It is None when the server has no such file or does not allow it.
    """

    entries: int
    segments: int
    append_only_file: bool | None


class SubjectErasure:
    """The erasure of a data subject, under the tenant's archive lease.

    Inside `lease`, call the methods in this order: find_records, append_control_records, rewrite, wait_for_tables.
    """

    def __init__(self, log: Log, tenant: str, subject: Subject) -> None:
        self._log = log
        self._tenant = tenant
        self._keys = keys_of(tenant)
        self._subject = subject
        self._lease_owner = f"erase:{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        self._acknowledged = 0
        self._through = 0
        self.search = SubjectSearch(tenant, subject)

    # -- the lease -----------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def lease(self) -> AsyncIterator[None]:
        """Hold the tenant's archive lease.

        Waits while another process has it. Raises LogFull, LogRefused, LogUnavailable.
        """
        while not await self._acquire_lease():  # noqa: ASYNC110
            await asyncio.sleep(PAUSE_SECONDS)
        renewing = asyncio.create_task(self._keep_renewing_lease())
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            if await self._log.connection.call("GET", self._keys.archive_lease) == self._lease_owner.encode():
                await self._log.connection.call("DEL", self._keys.archive_lease)

    async def renew_lease(self) -> None:
        """Renew the lease after a pause, such as a question to a person.

        Raises LeaseLost.
        """
        if not await self._acquire_lease():
            raise LeaseLost

    async def _acquire_lease(self) -> bool:
        names = [self._keys.log, self._keys.groups, self._keys.archive_lease]
        reply = await self._log.connection.run("archive_lease", names, [self._lease_owner, int(LEASE_SECONDS * 1000)])
        if reply:
            self._acknowledged = int(reply[0])
        return bool(reply)

    async def _keep_renewing_lease(self) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 10)
            with contextlib.suppress(LogUnavailable, LogFull):
                await self._acquire_lease()

    # -- searching -----------------------------------------------------------------------------------------------------

    async def find_records(self, show: Show) -> None:
        """Find the records about the subject.

        Also finds the records that earlier control records name and that still have their bytes. Raises Gap, LogUnavailable.
        """
        self._through = await self._log.last_position(self._tenant)
        await self._read(0, self.search.match, lambda position: show(position, 2 * self._through))
        salt = await self._log.connection.call("HGET", self._keys.suppressed, "salt")
        self.search.salt = self.search.salt or (salt.decode() if salt else secrets.token_hex(16))
        await self._read(0, self.search.decide, lambda position: show(self._through + position, 2 * self._through))

    async def _read(self, after: int, act: Callable[[Record], None], show: Callable[[int], None]) -> None:
        async for page in self._log.read(self._tenant, after, through=self._through):
            for record in page:
                act(record)
            show(page[-1].position)

    # -- control records -----------------------------------------------------------------------------------------------

    async def append_control_records(self) -> int:
        """Suppress the identities, then append the control records.

        Returns the position of the last control record, or 0 if none was needed. An event that arrived with such an identity
        while the log was being read is erased, too; suppression keeps out any later one. The first control record names the
        newest records. A derived session, which is named by its first event, therefore loses that event last, and is renamed
        only once.

        Raises LogFull, LogRefused, LogUnavailable, TenantDeleted.
        """
        search, connection = self.search, self._log.connection
        if names := search.suppressed_names():
            await suppress(connection, self._tenant, search.salt, names, search.identities)
        failpoint("between_suppression_and_control_records")
        through, self._through = self._through, await self._log.last_position(self._tenant)
        await self._read(through, search.decide, lambda position: None)
        positions, last = search.new_positions, 0
        while positions:
            newest, positions = positions[-control.MAX_POSITIONS :], positions[: -control.MAX_POSITIONS]
            names_of_newest = [search.to_erase[position] for position in newest]
            control_record = control.Erase(search.salt, self._subject.digest(search.salt), through, newest, names_of_newest)
            last = await control.append(connection, self._tenant, control_record)
            failpoint("between_control_records")
        return last

    async def wait_for_tables(self, position: int) -> bool:
        """Wait until all projectors have applied a position.

        Returns False if the projectors stop acknowledging records.
        """
        acknowledged_before, deadline = -1, 0.0
        while self._acknowledged < position:
            if self._acknowledged != acknowledged_before:
                acknowledged_before, deadline = self._acknowledged, time.monotonic() + TABLES_WAIT_SECONDS
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(PAUSE_SECONDS)
            await self._acquire_lease()
        return True

    # -- rewriting -----------------------------------------------------------------------------------------------------

    async def rewrite(self, show: Show) -> Rewritten:
        """Remove the bytes of the erased records.

        Rewrites the log, the archive and the append-only file; also removes bytes that an interrupted run left. Raises LeaseLost,
        NoMemoryForRewrite, DamagedArchive, ArchiveMoved, ArchiveUnavailable, LogUnavailable.
        """
        positions = sorted(self.search.to_erase)
        entries = await self._rewrite_log(positions, show)
        failpoint("between_log_and_archive")
        segments = 0
        if self._log.archive_url:
            erasure = Erasure(self._subject.digest(self.search.salt), self._through, len(positions), time.time_ns() // 1_000)
            archive = await asyncio.to_thread(Archive, self._log.archive_url)
            segments = await asyncio.to_thread(archive.erase, self._tenant, positions, erasure)
        return Rewritten(entries, segments, await rewrite_append_only_file(self._log.connection))

    async def _rewrite_log(self, positions: Sequence[int], show: Show) -> int:
        """Replace the stream by a copy; return how many entries were erased.

        The stream is copied even if it has no entry to erase. The server only marks an entry that it trims, and keeps the bytes
        until the neighbouring entries are trimmed, too.
        """
        oldest = await self._log.connection.call("XRANGE", self._keys.log, "-", "+", "COUNT", 1)
        first = int(oldest[0][0].partition(b"-")[0]) if oldest else 1
        on_server = positions[bisect_left(positions, first) :]
        for _ in range(COPY_TRIES):
            outcome = await self._copy_log(on_server, first, show)
            if outcome != b"moved":
                return len(on_server) if outcome == b"done" else 0
        raise LogUnavailable("another process removes entries from the log while it is copied")

    async def _copy_log(self, positions: Sequence[int], first: int, show: Show) -> bytes:
        """Copy the stream, part by part; return the last answer of rewrite.lua."""
        keys, last = self._keys, await self._log.last_position(self._tenant)
        copied_id, reached, through = b"-", first - 1, first - 1
        while True:
            through += COPY_RECORDS
            part_positions = positions[bisect_right(positions, reached) : bisect_right(positions, through)]
            arguments = [self._lease_owner, copied_id, through, control.ERASED, COPY_RECORDS, COPY_BYTES, *part_positions]
            try:
                reply = await self._log.connection.run("rewrite", [keys.log, keys.rewrite, keys.archive_lease], arguments)
            except (LogFull, LogRefused) as error:
                await self._log.connection.call("UNLINK", keys.rewrite)
                raise NoMemoryForRewrite from None if isinstance(error, LogFull) else error
            if reply == b"taken":
                raise LeaseLost
            if b"-" not in reply:
                return bytes(reply)
            if reply != copied_id:  # unchanged if no entry has these positions
                copied_id = reply
                reached = through = int(copied_id.partition(b"-")[0])
            show(reached, last)
            failpoint("while_the_log_is_copied")
