"""The ingest endpoint of foreign formats.

It appends like the native one, but answers as the clients of each format expect. Those clients read no receipts, and drop a whole
batch when they get a 400. So a message that is no valid event, or that conflicts with an earlier event, is kept as a dead letter,
and its neighbours are accepted.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import msgspec
from starlette.datastructures import State
from starlette.types import Receive, Scope, Send

from api.auth import credential_of
from api.formats import Answer, ForeignRequest, ForeignRoute, Format, OpenedRequest, Unreadable
from api.http import ERRORS, HEADERS, BodyReservation, Problem, headers_by_name, problem_of, read_body, unpack
from api.ingest.parsing import parse_all
from api.ingest.receipts import HeaderList, rate_limit_headers
from api.schemas import Refusal
from streams import EVENT_VERSION, Event, Limits, Receipt, Rejected, dead_letter
from streams.runtime import failpoint

MESSAGE_LIMIT = 10_000  # of a request; the largest batch of a known SDK has 2,000, and each bad message costs a record
HIDDEN_KEY = b"***"
GZIP_MAGIC = b"\x1f\x8b"
KeepDeadLetter = Callable[[bytes, dead_letter.Reason, str], Event]
T = TypeVar("T")
_encode = msgspec.json.Encoder().encode


class PostForeign:
    """The endpoint of a foreign route.

    It is plain ASGI, for the reason that PostEvents gives.
    """

    def __init__(self, route: ForeignRoute) -> None:
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Unexpected errors rise to the framework."""
        state: State = scope["app"].state
        raw_headers: HeaderList = scope["headers"]
        format: Format | None = None
        try:
            with BodyReservation(state.body_budget) as reservation:
                headers = headers_by_name(raw_headers)
                body = await _read_body(receive, headers, state.settings.max_request_bytes, reservation)
                received_at_us = time.time_ns() // 1_000
                request = ForeignRequest(scope.get("path_params", {}), scope["query_string"], headers, body, received_at_us)
                format = await _readable(state, raw_headers, self._route.choose, request)
                opened = await _readable(state, raw_headers, format.open, request)
                answer, answer_headers = await _append(state, raw_headers, format, request, opened)
        except Problem as problem:
            answer, answer_headers = refuse(problem, format)
        except tuple(ERRORS) as error:
            answer, answer_headers = refuse(problem_of(error), format)
        answer_headers = [*_content_headers(answer), *answer_headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": answer_headers})
        await send({"type": "http.response.body", "body": answer.body})


def _content_headers(answer: Answer) -> HeaderList:
    """Content-Type and Content-Length; a 204 has neither (RFC 9110, 8.6)."""
    if answer.status == 204:
        return []
    media_type = [(b"content-type", answer.media_type.encode())] if answer.body else []
    return [*media_type, (b"content-length", b"%d" % len(answer.body))]


async def _read_body(receive: Receive, headers: dict[bytes, bytes], limit_bytes: int, reservation: BodyReservation) -> bytes:
    """The body, unpacked if it is gzip; Content-Encoding is ignored."""
    packed = await read_body(receive, headers | {b"content-encoding": b""}, limit_bytes, reservation)
    if not packed.startswith(GZIP_MAGIC):
        return packed
    body = unpack(packed, b"gzip", limit_bytes)
    reservation.resize(len(packed) + len(body))
    return body


async def _readable(state: State, headers: HeaderList, read: Callable[[ForeignRequest], T], request: ForeignRequest) -> T:
    """What a format reads in a request. Raises Problem.

    Only a client that may append learns why its request is unreadable, so admission comes before the answer.
    """
    try:
        return read(request)
    except Unreadable as error:
        credential = credential_of(headers) or error.key or request.path.get("key")
        await state.admission.admit(headers, "append", credential)
        raise Problem(400, "not-understood", str(error)) from None


async def _append(
    state: State, headers: HeaderList, format: Format, request: ForeignRequest, opened: OpenedRequest
) -> tuple[Answer, HeaderList]:
    """Append the messages of a request, and answer it.

    Raises Problem, and the errors of Log.append.
    """
    is_open = state.settings.auth == "open"
    credential = credential_of(headers) or opened.key or (opened.open_tenant if is_open else None)
    tenant = await state.admission.admit(headers, "append", credential)
    limit, limit_bytes = max(MESSAGE_LIMIT, state.settings.max_request_events), state.settings.max_event_bytes
    if len(opened.messages) > limit:
        raise Problem(413, "too-many-events", f"a request may have {limit} messages", limit=limit, value=len(opened.messages))
    keep = partial(_dead_letter, format, limit_bytes, b"" if is_open else (opened.key or "").encode())
    events = await parse_all(opened.messages, partial(_event_or_dead_letter, format, opened, limit_bytes, keep))
    failpoint("after_parse_before_append")
    limits = state.registry.limits_of(tenant)
    receipts = await _log_append(state, tenant, events, limits)
    conflicts = [
        keep(message, "conflict", f"another event with this identity is at position {receipt.position}")
        for message, event, receipt in zip(opened.messages, events, receipts, strict=True)
        if receipt.status == "conflict" and event.version == EVENT_VERSION
    ]
    receipts += await _log_append(state, tenant, conflicts, limits)
    failpoint("after_append_before_reply")
    limit_headers = rate_limit_headers(receipts, limits)
    if limit_headers:
        problem = Problem(429, "limited", "the tenant sends more than its limits allow; send the same again later")
        return refuse(problem, format, limit_headers)
    return format.answer(request, opened), []


def _event_or_dead_letter(format: Format, opened: OpenedRequest, limit_bytes: int, keep: KeepDeadLetter, message: bytes) -> Event:
    """The event that a message describes, or a dead letter with its bytes."""
    try:
        if len(message) > limit_bytes:
            raise Rejected("", f"the event is larger than {limit_bytes} bytes", limit=limit_bytes, value=len(message))
        return format.event_of(message, opened)
    except Rejected as error:
        return keep(message, "invalid", str(error) if error.value is None else f"{error} (it has {error.value})")


def _dead_letter(format: Format, limit_bytes: int, key: bytes, message: bytes, reason: dead_letter.Reason, detail: str) -> Event:
    """A dead letter for a message.

    A key in the message is masked: of keys, only the hash is ever stored.
    """
    if key:
        message = message.replace(key, HIDDEN_KEY)
    return dead_letter.make(
        message,
        format=format.name,
        reason=reason,
        detail=detail,
        limit_bytes=limit_bytes // 2,  # escaped in JSON, the bytes take more room
        named_by=format.identity_of(message),
    )


async def _log_append(state: State, tenant: str, events: Sequence[Event], limits: Limits) -> list[Receipt]:
    return await state.log.append(tenant, events, limits=limits) if events else []


def refuse(problem: Problem, format: Format | None, headers: HeaderList | None = None) -> tuple[Answer, HeaderList]:
    """The answer of a format for a problem, and its headers.

    The format is None when it is not known yet. Without `headers` the problem's usual headers are sent.
    """
    status = format.status_when_limited if format and problem.status == 429 else problem.status
    exceeded = [f"{name} {problem.extra[name]}" for name in ("limit", "value") if name in problem.extra]
    detail = f"{problem.detail} ({', '.join(exceeded)})" if exceeded else problem.detail
    refusal = Refusal(status, problem.code, detail, detail)
    if format:
        refusal = format.refuse(refusal)
    if headers is None:
        usual: dict[str, str] = HEADERS.get(refusal.code, {})
        headers = [(name.encode(), value.encode()) for name, value in usual.items()]
    return Answer(refusal.code, _encode(refusal)), headers
