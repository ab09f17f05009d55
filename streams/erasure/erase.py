"""Erase a data subject from a tenant's log.

Control records say which records are erased, then their bytes leave the server and the archive. Positions stay: an erased
record takes the place of the record, so no reader of the log needs to know. A run may be killed at any moment: the next run
finds in the log what the control records name and is still there, and goes on.
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
COPY_RECORDS, COPY_BYTES = 500, 256 * 1024  # a script call, for which other calls wait
COPY_TRIES = 10
TABLES_WAIT_SECONDS = 1.0  # when no projector acknowledges anything for so long, none runs


class LeaseLost(PenstockError):
    """Another process has this tenant's archive lease now; run this again."""


class NoMemoryForRewrite(PenstockError):
    """The server's memory has no room for a second copy of this log.
    The log stays as it was; run this again with more memory. The tables erase the records meanwhile.
    """


class Rewritten(msgspec.Struct, frozen=True):
    """What was rewritten.

    `entries` records on the server, `segments` of the archive, and whether the append-only file was rewritten: None when the
    server has none or does not allow it.
    """

    entries: int
    segments: int
    append_only_file: bool | None


class SubjectErasure:
    """One run over a tenant's log, under its archive lease.

    The methods are called in this order: find_records, append_control_records, rewrite, wait_for_tables.
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

        Waits for a process that has it. Raises LogFull, LogRefused, LogUnavailable.
        """
        while not await self._acquire_lease():  # noqa: ASYNC110
            await asyncio.sleep(PAUSE_SECONDS)
        renewing = asyncio.create_task(self._renew_lease_again_and_again())
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

    async def _renew_lease_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 10)
            with contextlib.suppress(LogUnavailable, LogFull):
                await self._acquire_lease()

    # -- searching -----------------------------------------------------------------------------------------------------

    async def find_records(self, show: Show) -> None:
        """Find the records about the subject.

        Also the records that control records name and that are still there. Raises Gap, LogUnavailable.
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

        Returns the last position, 0 when there is none to append. An event of one of the identities that came while the log was
        read is erased, too; none comes after it. Of many records the newest are named first: a session loses its first event,
        from which its name comes, only once and last.

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

        Returns False when none of them advances.
        """
        acknowledged, deadline = -1, 0.0
        while self._acknowledged < position:
            if self._acknowledged != acknowledged:
                acknowledged, deadline = self._acknowledged, time.monotonic() + TABLES_WAIT_SECONDS
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(PAUSE_SECONDS)
            await self._acquire_lease()
        return True

    # -- rewriting -----------------------------------------------------------------------------------------------------

    async def rewrite(self, show: Show) -> Rewritten:
        """Remove the bytes of the erased records.

        Rewrites the log, the archive and the append-only file; also removes what a killed run left there. Raises LeaseLost,
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

        Also when it has no entry to erase: a server only marks an entry that it trims, and keeps its bytes until the entries
        beside it are trimmed, too.
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
        copied, reached, through = b"-", first - 1, first - 1
        while True:
            through += COPY_RECORDS
            of_part = positions[bisect_right(positions, reached) : bisect_right(positions, through)]
            arguments = [self._lease_owner, copied, through, control.ERASED, COPY_RECORDS, COPY_BYTES, *of_part]
            try:
                reply = await self._log.connection.run("rewrite", [keys.log, keys.rewrite, keys.archive_lease], arguments)
            except (LogFull, LogRefused) as error:
                await self._log.connection.call("UNLINK", keys.rewrite)
                raise NoMemoryForRewrite from None if isinstance(error, LogFull) else error
            if reply == b"taken":
                raise LeaseLost
            if b"-" not in reply:
                return bytes(reply)
            if reply != copied:  # equal where no entry has these positions
                copied = reply
                reached = through = int(copied.partition(b"-")[0])
            show(reached, last)
            failpoint("while_the_log_is_copied")
