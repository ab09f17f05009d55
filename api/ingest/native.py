"""The door: a body becomes events, events become receipts. Good events pass whatever the others are."""

import asyncio
import io
import math
import re
from collections.abc import Sequence
from itertools import islice
from typing import Any

import msgspec
from starlette.datastructures import State
from starlette.types import Receive, Scope, Send

from api.formats.base64_text import bytes_in
from api.http.body import Held, joined, read_body
from api.http.problems import Problem
from streams import Event, Limits, Log, Receipt, Rejected, Settings, check_event, decode_json, failpoint, parse_event

NDJSON = (b"application/x-ndjson", b"application/ndjson", b"application/jsonl")
STATUS_OF_ONE = {"accepted": 202, "duplicate": 200, "conflict": 409, "rejected": 422, "limited": 429}
PAYLOAD_GROWTH = 2  # base64 takes a third more, JSON may escape some of it
TURN_BYTES = 64 * 1024  # parsed before other requests get their turn
COMMAS_AT_ONCE = 500_000  # of an array: with more it may be of millions, which takes longer than a turn
TURN_TOKENS = 10_000  # the same where only brackets and commas are looked at

_encode = msgspec.json.Encoder().encode
_raw_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
# Possessive, and a string without an end goes to the end: whatever stands there is looked at once.
_structure = re.compile(rb'"(?:[^"\\]++|\\.?)*+"?|[\[\]{},]', re.DOTALL).finditer


class PostEvents:
    """POST /api/events: one event, a JSON array of events, or a line of JSON each.

    Plain ASGI: a Request, a Response and what stands around them take as long as parsing, naming and appending an event.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. What it raises becomes an answer in the table of problems."""
        state: State = scope["app"].state
        tenant = await state.admission.admit(scope["headers"], "append")
        with Held(state.body_budget) as held:
            await self._take(scope, receive, send, tenant, held)

    async def _take(self, scope: Scope, receive: Receive, send: Send, tenant: str, held: Held) -> None:
        """Answer a request that was let in."""
        state: State = scope["app"].state
        settings: Settings = state.settings
        headers = joined(scope["headers"])
        body = await read_body(receive, headers, settings.max_request_bytes, held)
        limit = settings.max_request_events
        raws = await split_body(body, headers.get(b"content-type", b""), limit + 1)
        if raws is None:
            parsed = [parse(body, settings.max_event_bytes, whole_body=True)]
        elif len(raws) > limit:
            raise Problem(413, "too-many-events", f"a request may hold {limit} events", limit=limit, value=len(raws))
        else:
            parsed = await parse_all(raws, settings.max_event_bytes)
        failpoint("after_parse_before_append")
        limits = state.registry.limits_of(tenant)
        appended = await append(state.log, tenant, parsed, limits)
        failpoint("after_append_before_reply")
        receipts = receipts_of(parsed, appended, limits)
        if raws is None:
            await _answer(send, STATUS_OF_ONE[receipts[0]["status"]], receipts[0], headers_of(appended, limits))
        else:
            await _answer(send, status_of_batch(receipts), {"receipts": receipts}, headers_of(appended, limits))


async def _answer(send: Send, status: int, content: dict[str, Any], more: list[tuple[bytes, bytes]]) -> None:
    body = _encode(content)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def append(log: Log, tenant: str, parsed: Sequence[Event | Rejected], limits: Limits) -> list[Receipt]:
    """Append the events among what was parsed, and have the others counted; the receipts of the events."""
    if not parsed:
        return []
    events = [event for event in parsed if isinstance(event, Event)]
    return await log.append(tenant, events, limits=limits, rejected=len(parsed) - len(events))


def receipts_of(parsed: Sequence[Event | Rejected], appended: Sequence[Receipt], limits: Limits) -> list[dict[str, Any]]:
    """A receipt for each of what was parsed, in the order sent."""
    receipts = iter(appended)
    return [receipt_of(next(receipts), limits) if isinstance(event, Event) else rejection_of(event) for event in parsed]


def receipt_of(receipt: Receipt, limits: Limits) -> dict[str, Any]:
    """The receipt of an event that the log has seen."""
    told = {"status": receipt.status, "event_hash": receipt.event_hash, "position": receipt.position}
    if receipt.limit:
        told |= {"reason": receipt.limit, "limit": getattr(limits, receipt.limit)}
    return told


def headers_of(appended: Sequence[Receipt], limits: Limits) -> list[tuple[bytes, bytes]]:
    """When to send again what was limited, and by what it was; nothing when nothing was."""
    limited = [receipt for receipt in appended if receipt.limit]
    if not limited:
        return []
    longest = max(limited, key=lambda receipt: receipt.wait_seconds)
    seconds = b"%d" % max(1, math.ceil(longest.wait_seconds))
    limit = b"%d" % getattr(limits, longest.limit)
    return [
        (b"retry-after", seconds),
        (b"ratelimit-limit", limit),
        (b"ratelimit-remaining", b"0"),
        (b"ratelimit-reset", seconds),
    ]


def rejection_of(error: Rejected) -> dict[str, Any]:
    """The receipt of an event that was not accepted: the field and the reason, and the limit and value if one was passed."""
    receipt: dict[str, Any] = {
        "status": "rejected",
        "event_hash": None,
        "position": None,
        "field": error.field,
        "reason": error.reason,
    }
    if error.limit is not None:
        receipt |= {"limit": error.limit, "value": error.value}
    return receipt


def status_of_batch(receipts: Sequence[dict[str, Any]]) -> int:
    """The HTTP status of a batch's receipts."""
    statuses = {receipt["status"] for receipt in receipts}
    if not statuses & {"conflict", "rejected", "limited"}:
        return 202 if "accepted" in statuses else 200
    if statuses & {"accepted", "duplicate"}:
        return 207
    return 429 if "limited" in statuses else 422


# -- bytes to events ---------------------------------------------------------------------------------------------------


async def split_body(body: bytes, content_type: bytes, most: int) -> list[bytes] | None:
    """The events' JSON texts of a batch, the first `most` of them; None when the body is one event."""
    if content_type.partition(b";")[0].strip().lower() in NDJSON:
        lines = (line.removesuffix(b"\n") for line in io.BytesIO(body) if line.strip())
        return list(islice(lines, most))
    if body.lstrip()[:1] != b"[":
        return None
    if body.count(b",") > COMMAS_AT_ONCE:
        return await _split_in_turns(body, most)
    try:
        return [bytes(item) for item in islice(_raw_items(body), most)]
    except RecursionError:
        return await _split_in_turns(body, most)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Problem(400, "not-json", f"the body is not a JSON array: {error}") from None


async def _split_in_turns(body: bytes, most: int) -> list[bytes]:
    """The items of an array of which one is nested too deep for the parser, or that may have millions; each is parsed on its
    own."""
    items: list[bytes] = []
    depth = 0
    start = body.index(b"[") + 1
    for number, token in enumerate(_structure(body), 1):
        if number % TURN_TOKENS == 0:
            await asyncio.sleep(0)
        if token[0] in (b"[", b"{"):
            depth += 1
        elif token[0] in (b"]", b"}"):
            depth -= 1
        if depth == 0 or (depth == 1 and token[0] == b","):
            items.append(body[start : token.start()])
            start = token.end()
        if depth == 0:
            break
        if len(items) == most:
            return items
    if depth or body[start:].strip():
        raise Problem(400, "not-json", "the body is not a JSON array")
    return items


async def parse_all(raws: Sequence[bytes], limit_bytes: int) -> list[Event | Rejected]:
    """A batch's events; what others wait for goes on in between."""
    parsed: list[Event | Rejected] = []
    since_turn = 0
    for raw in raws:
        parsed.append(parse(raw, limit_bytes))
        since_turn += len(raw)
        if since_turn > TURN_BYTES:
            await asyncio.sleep(0)
            since_turn = 0
    return parsed


def parse(raw: bytes, limit_bytes: int, *, whole_body: bool = False) -> Event | Rejected:
    """An event from its JSON text: the object itself, or one whose `payload` is the object in base64."""
    try:
        if len(raw) > limit_bytes * PAYLOAD_GROWTH:
            raise _too_large(limit_bytes, len(raw))
        members = decode_json(raw)
    except Rejected as error:
        if whole_body and error.limit is None:
            raise Problem(400, "not-json", f"the body {error.reason}") from None
        return error.with_traceback(None)  # or a batch of them keeps all that was looked at
    try:
        wrapped = type(members) is dict and "payload" in members and "session_id" not in members
        event = payload_of(members["payload"]) if wrapped else raw
        if len(event) > limit_bytes:
            raise _too_large(limit_bytes, len(event))
        return parse_event(event) if wrapped else check_event(members, raw)
    except Rejected as error:
        return error.with_traceback(None)


def _too_large(limit_bytes: int, value: int) -> Rejected:
    return Rejected("", f"the event is larger than {limit_bytes} bytes", limit=limit_bytes, value=value)


def payload_of(payload: Any) -> bytes:
    """The bytes of a payload: base64, standard or URL-safe, padded or not."""
    if type(payload) is not str:
        raise Rejected("payload", "must be a string of base64")
    try:
        return bytes_in(payload)
    except ValueError:
        raise Rejected("payload", "is not base64") from None
