"""The door for foreign formats: as the native one behind the parse, and with the answers that other people's clients understand.

Those clients read no receipts, and drop a whole batch for a 400: what is no event, or has the name of another, is set aside with
its bytes, and its neighbours go in.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import msgspec
from starlette.datastructures import State
from starlette.types import Receive, Scope, Send

from api.auth.credentials import credential_of
from api.formats import Answer, Envelope, Foreign, Format, Parts, Unreadable
from api.http.body import Held, joined, read_body, unpack
from api.http.problems import ERRORS, HEADERS, Problem, problem_of
from api.ingest.native import TURN_BYTES, headers_of
from api.schemas import Refusal
from streams import EVENT_VERSION, Event, Limits, Receipt, Rejected, dead_letter, failpoint

MESSAGES = 10_000  # of a request: the largest batch of an SDK that we know has 2,000, and each that is bad costs a record
HIDDEN_KEY = b"***"
GZIP = b"\x1f\x8b"
Keep = Callable[[bytes, dead_letter.Reason, str], Event]
HeaderList = list[tuple[bytes, bytes]]
T = TypeVar("T")
_encode = msgspec.json.Encoder().encode


class PostForeign:
    """A path of foreign clients. Plain ASGI, for the reason that PostEvents gives."""

    def __init__(self, foreign: Foreign) -> None:
        self._foreign = foreign

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. An error that nobody foresaw is the framework's."""
        state: State = scope["app"].state
        format: Format | None = None
        try:
            with Held(state.body_budget) as held:
                headers = joined(scope["headers"])
                body = await _body(receive, headers, state.settings.max_request_bytes, held)
                parts = Parts(scope.get("path_params", {}), scope["query_string"], headers, body, time.time_ns() // 1_000)
                format = await _understood(state, scope["headers"], self._foreign.choose, parts)
                envelope = await _understood(state, scope["headers"], format.open, parts)
                answer, more = await _take(state, scope["headers"], format, parts, envelope)
        except Problem as problem:
            answer, more = refused(problem, format)
        except tuple(ERRORS) as error:
            answer, more = refused(problem_of(error), format)
        await send({"type": "http.response.start", "status": answer.status, "headers": [*_described(answer), *more]})
        await send({"type": "http.response.body", "body": answer.body})


def _described(answer: Answer) -> HeaderList:
    """The headers that say what an answer is; none say how long nothing is (RFC 9110, 8.6)."""
    if answer.status == 204:
        return []
    kind = [(b"content-type", answer.media_type.encode())] if answer.body else []
    return [*kind, (b"content-length", b"%d" % len(answer.body))]


async def _body(receive: Receive, headers: dict[bytes, bytes], limit_bytes: int, held: Held) -> bytes:
    """The body, unpacked if it is packed: what its headers say of it is not believed."""
    packed = await read_body(receive, headers | {b"content-encoding": b""}, limit_bytes, held)
    if not packed.startswith(GZIP):
        return packed
    body = unpack(packed, b"gzip", limit_bytes)
    held.hold(len(packed) + len(body))
    return body


async def _understood(state: State, headers: HeaderList, read: Callable[[Parts], T], parts: Parts) -> T:
    """What a format reads in a request. What it cannot read is told to whom may append: who asks comes first. Raises Problem."""
    try:
        return read(parts)
    except Unreadable as error:
        await state.admission.admit_as(headers, "append", credential_of(headers) or error.key or parts.path.get("key"))
        raise Problem(400, "not-understood", str(error)) from None


async def _take(state: State, headers: HeaderList, format: Format, parts: Parts, envelope: Envelope) -> tuple[Answer, HeaderList]:
    """Append what a request holds. Raises Problem, and what the log raises."""
    is_open = state.settings.auth == "open"
    credential = credential_of(headers) or envelope.key or (envelope.name if is_open else None)
    tenant = await state.admission.admit_as(headers, "append", credential)
    limit, limit_bytes = max(MESSAGES, state.settings.max_request_events), state.settings.max_event_bytes
    if len(envelope.messages) > limit:
        raise Problem(413, "too-many-events", f"a request may hold {limit} messages", limit=limit, value=len(envelope.messages))
    keep = partial(_aside, format, limit_bytes, b"" if is_open else (envelope.key or "").encode())
    events = await _events(format, envelope, limit_bytes, keep)
    failpoint("after_parse_before_append")
    limits = state.registry.limits_of(tenant)
    receipts = await _append(state, tenant, events, limits)
    conflicts = [
        keep(message, "conflict", f"the event of that name is at position {receipt.position}")
        for message, event, receipt in zip(envelope.messages, events, receipts, strict=True)
        if receipt.status == "conflict" and event.version == EVENT_VERSION
    ]
    receipts += await _append(state, tenant, conflicts, limits)
    failpoint("after_append_before_reply")
    more = headers_of(receipts, limits)
    if more:
        return refused(Problem(429, "limited", "too much is sent; the same may be sent again later"), format, more)
    return format.answer(parts, envelope), []


async def _events(format: Format, envelope: Envelope, limit_bytes: int, keep: Keep) -> list[Event]:
    """An event of each message, or what is set aside in its place; what others wait for goes on in between."""
    events: list[Event] = []
    since_turn = 0
    for message in envelope.messages:
        try:
            if len(message) > limit_bytes:
                raise Rejected("", f"the event is larger than {limit_bytes} bytes", limit=limit_bytes, value=len(message))
            events.append(format.event_of(message, envelope))
        except Rejected as error:
            detail = str(error) if error.value is None else f"{error} (it has {error.value})"
            events.append(keep(message, "invalid", detail))
        since_turn += len(message)
        if since_turn > TURN_BYTES:
            await asyncio.sleep(0)
            since_turn = 0
    return events


def _aside(format: Format, limit_bytes: int, key: bytes, message: bytes, reason: dead_letter.Reason, detail: str) -> Event:
    """What is kept of a message. A key that stands in it is not: of keys, nothing but the hash is stored."""
    if key:
        message = message.replace(key, HIDDEN_KEY)
    named_by = format.named_by(message)
    kept_bytes = limit_bytes // 2  # what JSON escapes of them takes more room
    return dead_letter.make(message, format=format.name, reason=reason, detail=detail, limit_bytes=kept_bytes, named_by=named_by)


async def _append(state: State, tenant: str, events: Sequence[Event], limits: Limits) -> list[Receipt]:
    return await state.log.append(tenant, events, limits=limits) if events else []


def refused(problem: Problem, format: Format | None, more: HeaderList | None = None) -> tuple[Answer, HeaderList]:
    """The answer that a problem is to a foreign client, and its headers; as its format has it, if that is known."""
    status = format.again if format and problem.status == 429 else problem.status
    passed = [f"{name} {problem.extra[name]}" for name in ("limit", "value") if name in problem.extra]
    detail = f"{problem.detail} ({', '.join(passed)})" if passed else problem.detail
    refusal = Refusal(status, problem.code, detail, detail)
    if format:
        refusal = format.refuse(refusal)
    if more is None:
        given: dict[str, str] = HEADERS.get(refusal.code, {})
        more = [(name.encode(), value.encode()) for name, value in given.items()]
    return Answer(refusal.code, _encode(refusal)), more
