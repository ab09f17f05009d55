"""Append events of many callers to their tenants' logs, each once.

Group commit: appends that wait while a flush is on its way go out with the next flush, so one fsync serves many callers.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import msgspec
from redis.exceptions import ResponseError

from streams.batches import batches
from streams.connection import Connection, Reply, error_of
from streams.errors import LogBusy, LogUnavailable
from streams.event import Event, content_digest, event_identity
from streams.keys import keys_of, queue_arguments
from streams.limits import LIMIT_NAMES, NO_LIMITS, Limits
from streams.throttle import Throttle

OUTCOMES = {1: "accepted", 2: "duplicate", 3: "conflict", 4: "limited"}
LIMITED = 4
CALL_LIMIT_EVENTS = 500
CALL_LIMIT_BYTES = 256 * 1024
FLUSH_LIMIT_BYTES = 4 * 1024 * 1024
WAITING_LIMIT_BYTES = 64 * 1024 * 1024
TENANT_WAITING_LIMIT_BYTES = WAITING_LIMIT_BYTES // 4  # so that a tenant's flood leaves room for the others
ENTRY_OVERHEAD_BYTES = 200
DRAIN_PAUSE_SECONDS = 0.0125


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """The answer to one event.

    `status` is "accepted", "duplicate" or "conflict", with the position of the first event of that identity; or "limited", with
    the name of the limit and the seconds after which the event would fit.
    """

    status: str
    event_hash: str
    position: int | None
    limit: str = ""
    wait_seconds: float = 0.0


class _Append(msgspec.Struct):
    """The events that one script call takes from a caller.

    `receipts` is the future of their receipts.
    """

    tenant: str
    events: Sequence[Event]
    identities: list[tuple[str, str]]
    limits: Limits
    rejected: int
    size_bytes: int
    deadline: float
    receipts: asyncio.Future[list[Receipt]]


class Appender:
    """Appends for all tenants of one process.

    A flush is a pipeline with one script call a tenant. When more waits than a flush takes, the tenants take turns. A tenant
    that was over its limit is throttled.
    """

    def __init__(self, connection: Connection, *, dedup_window_seconds: float) -> None:
        self.waiting_bytes = 0  # of events that wait in this process
        self._connection = connection
        self._window_ms = int(dedup_window_seconds * 1000)
        self._waiting: dict[str, list[_Append]] = {}
        self._waiting_of: dict[str, int] = {}  # bytes, with those that are throttled
        self._throttle: Throttle[_Append] = Throttle(self._enqueue)
        self._flushing: asyncio.Task[None] | None = None

    async def drain(self) -> None:
        """Wait until no append waits."""
        while self._flushing is not None or not self._throttle.is_idle:
            await (asyncio.wait([self._flushing]) if self._flushing is not None else asyncio.sleep(DRAIN_PAUSE_SECONDS))

    async def append(
        self, tenant: str, events: Sequence[Event], *, limits: Limits = NO_LIMITS, rejected: int = 0
    ) -> list[Receipt]:
        """Append events to a tenant's log, each once; return their receipts.

        The receipts are in the order of the events. An event that its limits do not let in is not appended. `rejected` more
        events, which cannot be appended, are counted.

        Raises LogUnavailable (some events may have been written: to append them again is safe), LogFull, LogRefused, LogBusy,
        TenantDeleted, BadTenant.
        """
        keys_of(tenant)
        body_bytes = sum([len(event.body) for event in events])
        self._refuse_flood(tenant, body_bytes + ENTRY_OVERHEAD_BYTES * len(events))
        if len(events) < 2 or (len(events) <= CALL_LIMIT_EVENTS and body_bytes <= CALL_LIMIT_BYTES):
            return await self._begin(tenant, events, body_bytes, limits, rejected)
        parts = batches(events, max_items=CALL_LIMIT_EVENTS, max_bytes=CALL_LIMIT_BYTES, size_of=lambda event: len(event.body))
        calls: list[asyncio.Future[list[Receipt]]] = []
        for part in parts:
            calls.append(self._begin(tenant, part, sum([len(event.body) for event in part]), limits, 0 if calls else rejected))
        receipts: list[Receipt] = []
        for result in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
            receipts += result
        return receipts

    def _refuse_flood(self, tenant: str, size_bytes: int) -> None:
        """Raises LogBusy when that many bytes more are too many."""
        if self.waiting_bytes + size_bytes > WAITING_LIMIT_BYTES:
            raise LogBusy(WAITING_LIMIT_BYTES, self.waiting_bytes + size_bytes)
        of_tenant = self._waiting_of.get(tenant, 0)
        if of_tenant and of_tenant + size_bytes > TENANT_WAITING_LIMIT_BYTES:
            raise LogBusy(TENANT_WAITING_LIMIT_BYTES, of_tenant + size_bytes)

    def _begin(
        self, tenant: str, events: Sequence[Event], body_bytes: int, limits: Limits, rejected: int
    ) -> asyncio.Future[list[Receipt]]:
        """Let events wait for a flush; return the future of their receipts.

        One script call must be able to take them.
        """
        loop = asyncio.get_running_loop()
        size_bytes = body_bytes + ENTRY_OVERHEAD_BYTES * max(1, len(events))  # never 0: `_waiting_of` has who waits
        self.waiting_bytes += size_bytes
        self._waiting_of[tenant] = self._waiting_of.get(tenant, 0) + size_bytes
        identities = [event_identity(tenant, event) for event in events]
        deadline = loop.time() + self._connection.budget_seconds
        append = _Append(tenant, events, identities, limits, rejected, size_bytes, deadline, loop.create_future())
        if not self._throttle.hold(tenant, append, limits.events_per_second):
            self._enqueue(tenant, [append])
        return append.receipts

    def _enqueue(self, tenant: str, appends: list[_Append]) -> None:
        """Let appends go out with the next flush.

        A flush begins, unless another one is on its way.
        """
        self._waiting.setdefault(tenant, []).extend(appends)
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())

    async def _flush(self) -> None:
        """Send what waits, until nothing waits."""
        try:
            while self._waiting:
                self._throttle.release_due()
                calls = self._next_calls()
                if not calls:
                    continue
                first_deadline = min(append.deadline for call in calls for append in call)
                try:
                    replies = await self._connection.script_pipeline(
                        "append",
                        [self._script_call(call) for call in calls],
                        budget_seconds=first_deadline - asyncio.get_running_loop().time(),
                    )
                except Exception as error:
                    for call in calls:
                        _fail(call, error)
                    continue
                for call, reply in zip(calls, replies, strict=True):
                    if _answer(call, reply):
                        self._throttle.delay(call[0].tenant)
        finally:
            self._flushing = None

    def _next_calls(self) -> list[list[_Append]]:
        """The appends that go out together, a list for each script call.

        Each tenant has one call.
        """
        calls: list[list[_Append]] = []
        flush_bytes = 0
        while self._waiting and flush_bytes < FLUSH_LIMIT_BYTES:
            tenant = next(iter(self._waiting))
            waiting = self._waiting.pop(tenant)
            count = _count_of_call(waiting)
            call_bytes = sum([append.size_bytes for append in waiting[:count]])
            flush_bytes += call_bytes
            self._waiting_of[tenant] -= call_bytes
            if not self._waiting_of[tenant]:
                del self._waiting_of[tenant]
            if count < len(waiting):
                self._waiting[tenant] = waiting[count:]
            if call := _in_time(waiting[:count]):
                calls.append(call)
        self.waiting_bytes -= flush_bytes
        return calls

    def _script_call(self, call: list[_Append]) -> tuple[list[str], list[Any]]:
        """The keys and arguments of append.lua for appends of one tenant."""
        tenant, limits = call[0].tenant, call[-1].limits
        keys = keys_of(tenant)
        names = [keys.log, keys.tenants, keys.groups, keys.usage, keys.deleted, keys.suppressed]
        arguments: list[Any] = [
            *queue_arguments(tenant),
            time.time_ns() // 1000,
            self._window_ms,
            sum([append.rejected for append in call]),
            limits.events_per_second,
            limits.bytes_per_second,
            limits.events_per_day,
        ]
        for append in call:
            for event, (event_hash, hash_parts) in zip(append.events, append.identities, strict=True):
                names.append(keys.dedup + event_hash)
                arguments += (content_digest(event), hash_parts, event.body)
        return names, arguments


def _count_of_call(waiting: Sequence[_Append]) -> int:
    """How many appends of a tenant, from the first, one script call may take."""
    events = size_bytes = 0
    for count, append in enumerate(waiting):
        events += len(append.events)
        size_bytes += append.size_bytes
        if count and (events > CALL_LIMIT_EVENTS or size_bytes > CALL_LIMIT_BYTES):
            return count
    return len(waiting)


def _in_time(appends: list[_Append]) -> list[_Append]:
    """The appends whose callers still wait.

    An append past its deadline fails: it was surely not sent.
    """
    now = asyncio.get_running_loop().time()
    for append in appends:
        if append.deadline <= now and not append.receipts.done():
            append.receipts.set_exception(LogUnavailable("the server did not answer the appends before in time"))
    return [append for append in appends if not append.receipts.done()]


def _answer(call: list[_Append], reply: Reply) -> bool:
    """Give the appends of a script call their receipts, or its error.

    Returns whether an event was limited.
    """
    if isinstance(reply, ResponseError):
        _fail(call, error_of(reply))
        return False
    wait_ms = reply[-1]
    outcomes = iter(reply)
    for append in call:
        receipts = [_receipt(next(outcomes), next(outcomes), name[0], wait_ms / 1000) for name in append.identities]
        if not append.receipts.done():
            append.receipts.set_result(receipts)
    return bool(wait_ms)


def _receipt(outcome: int, place: Any, event_hash: str, wait_seconds: float) -> Receipt:
    if outcome == LIMITED:
        return Receipt(OUTCOMES[outcome], event_hash, None, LIMIT_NAMES[place - 1], wait_seconds)
    return Receipt(OUTCOMES[outcome], event_hash, int(place))


def _fail(call: list[_Append], error: Exception) -> None:
    for append in call:
        if not append.receipts.done():
            append.receipts.set_exception(error)
