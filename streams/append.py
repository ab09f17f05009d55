"""Append: events of many callers go to the end of their tenants' streams together, each once, one fsync for all."""

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from streams.connection import Connection, Reply
from streams.errors import LogBusy, LogFull, LogRefused, LogUnavailable, TenantDeleted
from streams.event import Event, content_digest, event_identity
from streams.keys import READY_CHANNEL, keys_of, ready_prefix
from streams.limits import LIMIT_NAMES, Limits

OUTCOMES = {1: "accepted", 2: "duplicate", 3: "conflict", 4: "limited"}
LIMITED = 4
CALL_LIMIT_EVENTS = 500
CALL_LIMIT_BYTES = 256 * 1024
FLUSH_LIMIT_BYTES = 4 * 1024 * 1024
WAITING_LIMIT_BYTES = 64 * 1024 * 1024
TENANT_WAITING_LIMIT_BYTES = WAITING_LIMIT_BYTES // 4  # so that one who floods leaves room for the others
ENTRY_OVERHEAD_BYTES = 200
PUT_OFF_SECONDS, PUT_OFF_APPENDS = 0.0125, 16
ALONE_SECONDS = 0.05  # so long what is put off waits for a flush of others to go with


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """The answer to one event: accepted, duplicate or conflict, with the position of the first event of its name; or limited,
    by which limit, and after how many seconds it would fit."""

    status: str
    event_hash: str
    position: int | None
    limit: str = ""
    wait_seconds: float = 0.0


class _Append(msgspec.Struct):
    """A caller's events of one script call, and where its receipts go."""

    tenant: str
    events: Sequence[Event]
    names: list[tuple[str, str]]
    limits: Limits
    rejected: int
    size_bytes: int
    deadline: float
    receipts: asyncio.Future[list[Receipt]]


class _PutOff(msgspec.Struct):
    """Appends of a tenant that was over its limit, and when some of them may go on."""

    due: float
    alone: asyncio.TimerHandle
    appends: list[_Append] = []


class Appender:
    """Group commit: what waits while a flush is on its way goes out with the next, one script call a tenant; when more waits
    than goes out at once, the tenants take turns. A tenant that was over its limit is put off for a moment and goes with the
    flushes of others, so that they share them, each of which is on disk before the next, with little of its flood."""

    def __init__(self, connection: Connection, *, dedup_window_seconds: float) -> None:
        self._connection = connection
        self._window_ms = int(dedup_window_seconds * 1000)
        self._waiting: dict[str, list[_Append]] = {}
        self._waiting_of: dict[str, int] = {}
        self._put_off: dict[str, _PutOff] = {}
        self.waiting_bytes = 0
        self._flushing: asyncio.Task[None] | None = None

    async def drain(self) -> None:
        """Until nothing waits any more."""
        while self._flushing is not None or self._put_off:
            await (asyncio.wait([self._flushing]) if self._flushing is not None else asyncio.sleep(PUT_OFF_SECONDS))

    async def append(self, tenant: str, events: Sequence[Event], *, limits: Limits, rejected: int) -> list[Receipt]:
        """See Log.append."""
        keys_of(tenant)
        self._refuse_flood(tenant, _size(events))
        parts = _parts(events)
        calls = [self._enqueue(tenant, part, limits, rejected if part is parts[0] else 0) for part in parts]
        self._begin_flush()
        if len(calls) == 1:
            return await calls[0]
        results = await asyncio.gather(*calls, return_exceptions=True)
        receipts: list[Receipt] = []
        for result in results:
            if isinstance(result, BaseException):
                raise result
            receipts += result
        return receipts

    def _refuse_flood(self, tenant: str, size: int) -> None:
        """Raises LogBusy when so many bytes more are too many."""
        if self.waiting_bytes + size > WAITING_LIMIT_BYTES:
            raise LogBusy(WAITING_LIMIT_BYTES, self.waiting_bytes + size)
        mine = self._waiting_of.get(tenant, 0)
        if mine and mine + size > TENANT_WAITING_LIMIT_BYTES:
            raise LogBusy(TENANT_WAITING_LIMIT_BYTES, mine + size)

    def _enqueue(self, tenant: str, events: Sequence[Event], limits: Limits, rejected: int) -> asyncio.Future[list[Receipt]]:
        size = _size(events)
        loop = asyncio.get_running_loop()
        receipts: asyncio.Future[list[Receipt]] = loop.create_future()
        self.waiting_bytes += size
        self._waiting_of[tenant] = self._waiting_of.get(tenant, 0) + size
        names = [event_identity(tenant, event) for event in events]
        deadline = loop.time() + self._connection.budget_seconds
        append = _Append(tenant, events, names, limits, rejected, size, deadline, receipts)
        put_off = self._put_off.get(tenant)
        (self._waiting.setdefault(tenant, []) if put_off is None else put_off.appends).append(append)
        return receipts

    def _begin_flush(self) -> None:
        if self._flushing is None and self._waiting:
            self._flushing = asyncio.create_task(self._flush())

    def _put_off_for_a_moment(self, tenant: str) -> None:
        if tenant not in self._put_off:
            loop = asyncio.get_running_loop()
            alone = loop.call_later(ALONE_SECONDS, self._go_alone, tenant)
            self._put_off[tenant] = _PutOff(loop.time() + PUT_OFF_SECONDS, alone)

    def _go_alone(self, tenant: str) -> None:
        """No flush of others took it along: it goes by itself."""
        put_off = self._put_off[tenant]
        put_off.alone = asyncio.get_running_loop().call_later(ALONE_SECONDS, self._go_alone, tenant)
        self._let_some_go_on(tenant, put_off)
        self._begin_flush()

    def _let_some_go_on(self, tenant: str, put_off: "_PutOff") -> None:
        """Let some of what was put off go on, twice as many as may be accepted meanwhile, when it is time."""
        now = asyncio.get_running_loop().time()
        if put_off.due > now:
            return
        if not put_off.appends:
            put_off.alone.cancel()
            del self._put_off[tenant]
            return
        rate = put_off.appends[0].limits.events_per_second
        seconds = now - put_off.due + PUT_OFF_SECONDS
        count = max(PUT_OFF_APPENDS, math.ceil(2 * rate * seconds)) if rate else len(put_off.appends)
        self._waiting.setdefault(tenant, []).extend(put_off.appends[:count])
        put_off.appends, put_off.due = put_off.appends[count:], now + PUT_OFF_SECONDS

    async def _flush(self) -> None:
        try:
            while self._waiting:
                await self._send([call for call in map(self._in_time, self._next()) if call])
        finally:
            self._flushing = None

    def _next(self) -> list[list[_Append]]:
        """The script calls that go out together: what waits, up to a bound, a call of each tenant in turn."""
        for tenant, put_off in list(self._put_off.items()):
            self._let_some_go_on(tenant, put_off)
        calls: list[list[_Append]] = []
        size = 0
        while self._waiting and size < FLUSH_LIMIT_BYTES:
            tenant = next(iter(self._waiting))
            waiting = self._waiting.pop(tenant)
            count = _count_of_call(waiting)
            calls.append(waiting[:count])
            taken = sum([append.size_bytes for append in calls[-1]])
            size += taken
            self._waiting_of[tenant] -= taken  # which counts what was put off, too
            if not self._waiting_of[tenant]:
                del self._waiting_of[tenant]
            if count < len(waiting):
                self._waiting[tenant] = waiting[count:]
        self.waiting_bytes -= size
        return calls

    def _in_time(self, appends: list[_Append]) -> list[_Append]:
        """Those whose callers still wait; one whose time is up was surely not sent."""
        now = asyncio.get_running_loop().time()
        for append in appends:
            if append.deadline <= now and not append.receipts.done():
                append.receipts.set_exception(LogUnavailable("the server did not answer those before in time"))
        return [append for append in appends if not append.receipts.done()]

    async def _send(self, calls: list[list[_Append]]) -> None:
        if not calls:
            return
        budget_seconds = min(append.deadline for call in calls for append in call) - asyncio.get_running_loop().time()
        try:
            replies = await self._connection.run(
                "append", [self._script_call(call) for call in calls], budget_seconds=budget_seconds
            )
        except Exception as error:
            for call in calls:
                _fail(call, error)
            return
        for call, reply in zip(calls, replies, strict=True):
            if _answer(call, reply):
                self._put_off_for_a_moment(call[0].tenant)

    def _script_call(self, call: list[_Append]) -> tuple[list[str], list[Any]]:
        """The keys and arguments of append.lua for appends of one tenant."""
        tenant, limits = call[0].tenant, call[-1].limits
        keys = keys_of(tenant)
        names = [keys.log, keys.tenants, keys.groups, keys.usage, keys.deleted, keys.suppressed]
        arguments: list[Any] = [
            tenant,
            keys.digest,
            ready_prefix(keys.partition),
            keys.partition,
            READY_CHANNEL,
            time.time_ns() // 1000,
            self._window_ms,
            sum([append.rejected for append in call]),
            limits.events_per_second,
            limits.bytes_per_second,
            limits.events_per_day,
        ]
        for append in call:
            for event, (event_hash, hash_parts) in zip(append.events, append.names, strict=True):
                names.append(keys.dedup + event_hash)
                arguments += (content_digest(event), hash_parts, event.body)
        return names, arguments


def _size(events: Sequence[Event]) -> int:
    """What events take here and in the server, about."""
    return sum([len(event.body) for event in events]) + ENTRY_OVERHEAD_BYTES * len(events)


def _parts(events: Sequence[Event]) -> list[Sequence[Event]]:
    """Events in parts that one script call may take; one without any when there are none, so that refusals are counted."""
    if len(events) <= 1:
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


def _count_of_call(waiting: Sequence[_Append]) -> int:
    """How many appends of a tenant, from the first, one script call may take."""
    events = size = 0
    for count, append in enumerate(waiting):
        events += len(append.events)
        size += append.size_bytes
        if count and (events > CALL_LIMIT_EVENTS or size > CALL_LIMIT_BYTES):
            return count
    return len(waiting)


def _answer(call: list[_Append], reply: Reply) -> bool:
    """Give each append of a script call its receipts, or the error that the call met; whether some were limited."""
    if isinstance(reply, Exception):
        _fail(call, refusal_of(reply))
        return False
    wait_seconds = reply[-1] / 1000
    outcomes = iter(reply)
    for append in call:
        receipts = [_receipt(next(outcomes), next(outcomes), name[0], wait_seconds) for name in append.names]
        if not append.receipts.done():
            append.receipts.set_result(receipts)
    return bool(reply[-1])  # when what was limited would fit


def _receipt(outcome: int, place: Any, event_hash: str, wait_seconds: float) -> Receipt:
    if outcome == LIMITED:
        return Receipt(OUTCOMES[outcome], event_hash, None, LIMIT_NAMES[place - 1], wait_seconds)
    return Receipt(OUTCOMES[outcome], event_hash, int(place))


def _fail(call: list[_Append], error: Exception) -> None:
    for append in call:
        if not append.receipts.done():
            append.receipts.set_exception(error)


def refusal_of(reply: Exception) -> Exception:
    """The error of a script call; older servers hide OOM in a plain error, so the text decides."""
    text = str(reply)
    if "DELETED" in text:
        return TenantDeleted()
    if "OOM" in text or "maxmemory" in text:
        return LogFull()
    if "MISCONF" in text or "READONLY" in text or "NOREPLICAS" in text:
        return LogUnavailable(text)
    return LogRefused(text)
