"""SubjectErasure somebody: a note in the log says which records are erased, then their bytes leave the server and the archive.

Whatever is killed on the way, the next run reads from the log what was noted and is there still, and goes on. Positions stay: an
erased record stands where the one before stood, so that nobody who reads a log needs to know.
"""

import asyncio
import contextlib
import os
import secrets
import socket
import time
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import msgspec
from redis.exceptions import ResponseError

from streams import control
from streams.append import refusal_of
from streams.archive.manifest import Erasure
from streams.connection import Connection
from streams.erasure.subject import Search, Subject
from streams.erasure.suppression import suppress
from streams.errors import LogFull, LogUnavailable, PenstockError
from streams.event import Record
from streams.keys import keys_of
from streams.log import Log
from streams.runtime.failpoints import failpoint
from streams.runtime.progress import Show

LEASE_SECONDS, PAUSE_SECONDS = 30.0, 0.1
COPY_RECORDS, COPY_BYTES = 500, 256 * 1024  # a script call: others wait for it
COPY_TRIES = 10
WAIT_SECONDS = 1.0  # for projectors that run; where none acknowledges anything for so long, none does


class LeaseLost(PenstockError):
    """Another process archives or cleans this tenant's log now; run this again."""


class NoMemoryForRewrite(PenstockError):
    """The server's memory has no room for a second log of this tenant: the log stays as it was, and what is noted is erased from
    it when this is run again with more memory. The tables forget meanwhile."""


class Cleanup(msgspec.Struct, frozen=True):
    """What was cleaned: entries of the server's stream, segments of the archive; whether its append-only file was written anew,
    None when it has none or does not allow that."""

    entries: int
    segments: int
    file_rewritten: bool | None


class SubjectErasure:
    """One run over one tenant's log, while nobody else archives or cleans it: search, note, clean, in this order."""

    def __init__(self, log: Log, tenant: str, subject: Subject) -> None:
        self._log = log
        self._tenant = tenant
        self._keys = keys_of(tenant)
        self._subject = subject
        self._lease_owner = f"forget:{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        self._acknowledged = 0
        self._through = 0
        self.search = Search(tenant, subject)

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """With the tenant's log for this process. Waits for an archiver that has it."""
        while not await self._hold():  # noqa: ASYNC110
            await asyncio.sleep(PAUSE_SECONDS)
        holding = asyncio.create_task(self._keep_holding())
        try:
            yield
        finally:
            holding.cancel()
            await asyncio.gather(holding, return_exceptions=True)
            if await self._log.connection.call("GET", self._keys.archiving) == self._lease_owner.encode():
                await self._log.connection.call("DEL", self._keys.archiving)

    async def keep_lease(self) -> None:
        """Go on after a while in which nothing was done, such as a question. Raises LeaseLost."""
        if not await self._hold():
            raise LeaseLost

    async def _hold(self) -> bool:
        names = [self._keys.log, self._keys.groups, self._keys.archiving]
        [reply] = await self._log.connection.run("archive_lease", [(names, [self._lease_owner, int(LEASE_SECONDS * 1000)])])
        if isinstance(reply, Exception):
            raise refusal_of(reply)
        if reply:
            self._acknowledged = int(reply[0])
        return bool(reply)

    async def _keep_holding(self) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 10)
            with contextlib.suppress(LogUnavailable, LogFull):
                await self._hold()

    # -- searching -----------------------------------------------------------------------------------------------------

    async def look(self, show: Show) -> None:
        """Find what is about the subject, or was noted and is there still. Raises Gap, LogUnavailable."""
        self._through = await self._log.last_position(self._tenant)
        await self._read(0, self.search.look, lambda done: show(done, 2 * self._through))
        held = await self._log.connection.call("HGET", self._keys.suppressed, "salt")
        self.search.salt = self.search.salt or (held.decode() if held else secrets.token_hex(16))
        await self._read(0, self.search.look_again, lambda done: show(self._through + done, 2 * self._through))

    async def _read(self, after: int, look: Callable[[Record], None], show: Callable[[int], None]) -> None:
        async for page in self._log.read(self._tenant, after, through=self._through):
            for record in page:
                look(record)
            show(page[-1].position)

    # -- noting --------------------------------------------------------------------------------------------------------

    async def note(self) -> int:
        """Keep the names out, then write the notes; the last one's position, 0 when all was noted before. Raises LogFull,
        LogUnavailable, TenantDeleted.

        What came by one of the names while the log was read is erased, too; after it, nothing comes by them. Of a person with
        many events the newest are noted first: a session loses its first event, by which it is called, once, at last."""
        search, connection = self.search, self._log.connection
        names = search.suppressed | {name: at for name, (at, _) in search.dedup_keys.items()}
        if names:
            await suppress(connection, self._tenant, search.salt, names, search.dedup_keys)
        failpoint("between_names_and_notes")
        through, self._through = self._through, await self._log.last_position(self._tenant)
        await self._read(through, search.look_again, lambda done: None)
        left, last = search.to_note, 0
        while left:
            some, left = left[-control.MAX_POSITIONS :], left[: -control.MAX_POSITIONS]
            names_of_some = [search.to_erase[position] for position in some]
            control_record = control.Erase(search.salt, self._subject.digest(search.salt), through, some, names_of_some)
            last = await control.append(connection, self._tenant, control_record)
            failpoint("between_forgetting_notes")
        return last

    async def reach(self, position: int) -> bool:
        """Until every projector's tables are at a position; False when nobody moves."""
        seen, until = -1, 0.0
        while self._acknowledged < position:
            if self._acknowledged != seen:
                seen, until = self._acknowledged, time.monotonic() + WAIT_SECONDS
            if time.monotonic() > until:
                return False
            await asyncio.sleep(PAUSE_SECONDS)
            await self._hold()
        return True

    # -- cleaning ------------------------------------------------------------------------------------------------------

    async def clean(self, show: Show) -> Cleanup:
        """Erase what is noted from the server and from the archive, and what a run that was killed left there.

        Raises LeaseLost, NoMemoryForRewrite, DamagedArchive, ArchiveMoved, ArchiveUnavailable, LogUnavailable."""
        positions = sorted(self.search.to_erase)
        entries = await self._clean_log(positions, show)
        failpoint("between_log_and_archive")
        segments = 0
        if self._log.archive_url:
            erasure = Erasure(self._subject.digest(self.search.salt), self._through, len(positions), time.time_ns() // 1_000)
            segments = await asyncio.to_thread(_clean_archive, self._log.archive_url, self._tenant, positions, erasure)
        return Cleanup(entries, segments, await rewrite_append_only_file(self._log.connection))

    async def _clean_log(self, positions: Sequence[int], show: Show) -> int:
        """Put a copy of the stream, without what is erased, in its place; how many of its entries those were. Also when it holds
        none of them: a server only marks an entry that it trims, and keeps its bytes until those beside it are gone, too."""
        held = await self._log.connection.call("XRANGE", self._keys.log, "-", "+", "COUNT", 1)
        first = int(held[0][0].partition(b"-")[0]) if held else 1
        wanted = positions[bisect_left(positions, first) :]
        for _ in range(COPY_TRIES):
            answer = await self._copy(wanted, first, show)
            if answer != b"moved":
                return len(wanted) if answer == b"done" else 0
        raise LogUnavailable("somebody removes entries from the log while it is copied")

    async def _copy(self, wanted: Sequence[int], first: int, show: Show) -> bytes:
        """Copy the stream, a stretch a call; what the last call answers."""
        keys, last = self._keys, await self._log.last_position(self._tenant)
        copied, reached, through = b"-", first - 1, first - 1
        while True:
            through += COPY_RECORDS
            some = wanted[bisect_right(wanted, reached) : bisect_right(wanted, through)]
            arguments = [self._lease_owner, copied, through, control.ERASED, COPY_RECORDS, COPY_BYTES, *some]
            [reply] = await self._log.connection.run("rewrite", [([keys.log, keys.copy, keys.archiving], arguments)])
            if isinstance(reply, Exception):
                await self._log.connection.call("UNLINK", keys.copy)
                error = refusal_of(reply)
                raise NoMemoryForRewrite from None if isinstance(error, LogFull) else error
            if reply == b"taken":
                raise LeaseLost
            if b"-" not in reply:
                return bytes(reply)
            if reply != copied:  # or there is nothing at these positions
                copied = reply
                reached = through = int(copied.partition(b"-")[0])
            show(reached, last)
            failpoint("while_the_log_is_copied")


def _clean_archive(url: str, tenant: str, positions: Sequence[int], erasure: Erasure) -> int:
    from streams.archive.store import Archive  # not above: pyarrow takes half a second to load

    return Archive(url).erase(tenant, positions, erasure)


async def rewrite_append_only_file(connection: Connection) -> bool | None:
    """Have the server write its append-only file anew, and wait until it has; None when it has none, or does not allow it."""

    async def persistence() -> dict[bytes, bytes]:
        lines = (await connection.call("INFO", "persistence")).splitlines()
        return dict(line.split(b":", 1) for line in lines if b":" in line)

    if (await persistence()).get(b"aof_enabled") != b"1":
        return None
    await _idle(persistence)
    try:
        await connection.call("BGREWRITEAOF")
    except ResponseError:
        return None
    return (await _idle(persistence)).get(b"aof_last_bgrewrite_status") == b"ok"


async def _idle(persistence: Callable[[], Awaitable[dict[bytes, bytes]]]) -> dict[bytes, bytes]:
    """Until no append-only file is being written anew."""
    while True:
        info = await persistence()
        if info.get(b"aof_rewrite_in_progress") == b"0" and info.get(b"aof_rewrite_scheduled") == b"0":
            return info
        await asyncio.sleep(PAUSE_SECONDS)
