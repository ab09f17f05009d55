"""Append: events of many callers go to the end of their tenants' streams together, each once, one fsync for all."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from streams.event import Event, digest_of, name_of
from streams.keys import WAKE_CHANNEL, keys_of, ready_prefix
from streams.wire import LogUnavailable, Reply, Wire

OUTCOMES = {1: "accepted", 2: "duplicate", 3: "conflict"}
CALL_LIMIT_EVENTS = 500
CALL_LIMIT_BYTES = 256 * 1024
FLUSH_LIMIT_BYTES = 4 * 1024 * 1024
WAITING_LIMIT_BYTES = 64 * 1024 * 1024
ENTRY_OVERHEAD_BYTES = 200


class LogFull(Exception):
    """The server's memory is full (maxmemory): it takes no more events until it gets more memory."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


class LogRefused(Exception):
    """The server answered an append with an error of its own."""


class LogBusy(Exception):
    """More events wait to be appended than this process holds."""

    def __init__(self, limit: int, value: int) -> None:
        super().__init__(self.__doc__)
        self.limit = limit
        self.value = value


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """The answer to one event: accepted, duplicate or conflict, with the position of the first event of its name."""

    status: str
    event_hash: str
    position: int


class _Append(msgspec.Struct):
    """A caller's events of one script call, and where its receipts go."""

    tenant: str
    events: Sequence[Event]
    names: list[tuple[str, str]]
    size_bytes: int
    deadline: float
    receipts: asyncio.Future[list[Receipt]]


class Appender:
    """Group commit: what waits while a flush is on its way goes out with the next, one script call a tenant."""

    def __init__(self, wire: Wire, *, window_seconds: float) -> None:
        self._wire = wire
        self._window_ms = int(window_seconds * 1000)
        self._waiting: list[_Append] = []
        self._waiting_bytes = 0
        self._flushing: asyncio.Task[None] | None = None

    async def drain(self) -> None:
        """Until nothing waits any more."""
        while self._flushing is not None:
            await asyncio.wait([self._flushing])

    async def append(self, tenant: str, events: Sequence[Event]) -> list[Receipt]:
        """See Log.append."""
        keys_of(tenant)
        size = _size(events)
        if self._waiting_bytes + size > WAITING_LIMIT_BYTES:
            raise LogBusy(WAITING_LIMIT_BYTES, self._waiting_bytes + size)
        calls = [self._enqueue(tenant, part) for part in _parts(events)]
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        if len(calls) == 1:
            return await calls[0]
        results = await asyncio.gather(*calls, return_exceptions=True)
        receipts: list[Receipt] = []
        for result in results:
            if isinstance(result, BaseException):
                raise result
            receipts += result
        return receipts

    def _enqueue(self, tenant: str, events: Sequence[Event]) -> asyncio.Future[list[Receipt]]:
        size = _size(events)
        loop = asyncio.get_running_loop()
        receipts: asyncio.Future[list[Receipt]] = loop.create_future()
        self._waiting_bytes += size
        names = [name_of(tenant, event) for event in events]
        self._waiting.append(_Append(tenant, events, names, size, loop.time() + self._wire.budget_seconds, receipts))
        return receipts

    async def _flush(self) -> None:
        try:
            while self._waiting:
                await self._send(self._in_time(self._next()))
        finally:
            self._flushing = None

    def _next(self) -> list[_Append]:
        """The appends that go out together: what waits, up to a bound."""
        size = count = 0
        for append in self._waiting:
            if count and size + append.size_bytes > FLUSH_LIMIT_BYTES:
                break
            size += append.size_bytes
            count += 1
        appends, self._waiting = self._waiting[:count], self._waiting[count:]
        self._waiting_bytes -= size
        return appends

    def _in_time(self, appends: list[_Append]) -> list[_Append]:
        """Those whose callers still wait; one whose time is up was surely not sent."""
        now = asyncio.get_running_loop().time()
        for append in appends:
            if append.deadline <= now and not append.receipts.done():
                append.receipts.set_exception(LogUnavailable("the server did not answer those before in time"))
        return [append for append in appends if not append.receipts.done()]

    async def _send(self, appends: list[_Append]) -> None:
        if not appends:
            return
        calls = _calls(appends)
        budget_seconds = appends[0].deadline - asyncio.get_running_loop().time()
        try:
            replies = await self._wire.run("append", [self._script_call(call) for call in calls], budget_seconds=budget_seconds)
        except Exception as error:
            for append in appends:
                if not append.receipts.done():
                    append.receipts.set_exception(error)
            return
        for call, reply in zip(calls, replies, strict=True):
            _answer(call, reply)

    def _script_call(self, call: list[_Append]) -> tuple[list[str], list[Any]]:
        """The keys and arguments of append.lua for appends of one tenant."""
        tenant = call[0].tenant
        keys = keys_of(tenant)
        names = [keys.log, keys.tenants, keys.groups]
        arguments: list[Any] = [
            tenant,
            ready_prefix(keys.partition),
            keys.partition,
            WAKE_CHANNEL,
            time.time_ns() // 1000,
            self._window_ms,
        ]
        for append in call:
            for event, (event_hash, split) in zip(append.events, append.names, strict=True):
                names.append(keys.seen + event_hash)
                arguments += (digest_of(event.body), split, event.body)
        return names, arguments


def _size(events: Sequence[Event]) -> int:
    """What events take here and in the server, about."""
    return sum([len(event.body) for event in events]) + ENTRY_OVERHEAD_BYTES * len(events)


def _parts(events: Sequence[Event]) -> list[Sequence[Event]]:
    """Events in parts that one script call may take."""
    if len(events) == 1:
        return [events]
    parts: list[Sequence[Event]] = []
    start = size = 0
    for i, event in enumerate(events):
        size += len(event.body)
        if i > start and (i - start == CALL_LIMIT_EVENTS or size > CALL_LIMIT_BYTES):
            parts.append(events[start:i])
            start, size = i, len(event.body)
    parts.append(events[start:])
    return parts


def _calls(appends: list[_Append]) -> list[list[_Append]]:
    """Appends by tenant, in order, each group small enough for one script call."""
    calls: list[list[_Append]] = []
    latest: dict[str, tuple[list[_Append], int, int]] = {}
    for append in appends:
        call, events, size = latest.get(append.tenant, ([], 0, 0))
        if not call or events + len(append.events) > CALL_LIMIT_EVENTS or size + append.size_bytes > CALL_LIMIT_BYTES:
            call, events, size = [], 0, 0
            calls.append(call)
        call.append(append)
        latest[append.tenant] = (call, events + len(append.events), size + append.size_bytes)
    return calls


def _answer(call: list[_Append], reply: Reply) -> None:
    """Give each append of a script call its receipts, or the error that the call met."""
    if isinstance(reply, Exception):
        error = _refusal(reply)
        for append in call:
            if not append.receipts.done():
                append.receipts.set_exception(error)
        return
    outcomes = iter(reply)
    for append in call:
        receipts = [Receipt(OUTCOMES[next(outcomes)], name[0], int(next(outcomes))) for name in append.names]
        if not append.receipts.done():
            append.receipts.set_result(receipts)


def _refusal(reply: Exception) -> Exception:
    """The error of a script call; older servers hide OOM in a plain error, so the text decides."""
    text = str(reply)
    if "OOM" in text or "maxmemory" in text:
        return LogFull()
    if "MISCONF" in text or "READONLY" in text or "NOREPLICAS" in text:
        return LogUnavailable(text)
    return LogRefused(text)
