"""Parsing: a body becomes messages, a message an event or a rejection.

A message never decides about its neighbours: an invalid message does not keep a valid one out.
"""

import asyncio
import io
import re
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, TypeVar

import msgspec

from api.formats.base64_text import decode_base64
from api.http import Problem
from streams import Event, Rejected, check_event, parse_event
from streams.runtime import Settings
from streams.validation import decode_json

NDJSON = (b"application/x-ndjson", b"application/ndjson", b"application/jsonl")
PAYLOAD_GROWTH = 2  # how much longer base64 makes an event, at most: by a third, and JSON may escape some characters
YIELD_BYTES = 64 * 1024  # parsed before other requests may run
YIELD_TOKENS = 10_000  # brackets and commas that are looked at before other requests may run
FAST_SPLIT_COMMAS = 500_000  # an array with more may have millions of items: splitting it at once would block other requests

T = TypeVar("T")

_raw_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
# The quantifiers are possessive, and an unfinished string extends to the end: so each byte of any body is looked at once.
_structure = re.compile(rb'"(?:[^"\\]++|\\.?)*+"?|[\[\]{},]', re.DOTALL).finditer


async def parse_request(body: bytes, content_type: bytes, settings: Settings) -> tuple[list[Event | Rejected], bool]:
    """The events and rejections of a body, and whether it is a batch.

    Raises Problem for a body that is not JSON, and for a batch with too many events.
    """
    limit, limit_bytes = settings.max_request_events, settings.max_event_bytes
    messages = await split_batch(body, content_type, limit + 1)
    if messages is None:
        return [parse_message(body, limit_bytes, is_whole_body=True)], False
    if len(messages) > limit:
        raise Problem(413, "too-many-events", f"a request may have {limit} events", limit=limit, value=len(messages))
    return await parse_all(messages, lambda message: parse_message(message, limit_bytes)), True


async def split_batch(body: bytes, content_type: bytes, count: int) -> list[bytes] | None:
    """The first `count` messages of a batch; None for a single event.

    Raises Problem for a body that begins like an array and is none.
    """
    if content_type.partition(b";")[0].strip().lower() in NDJSON:
        lines = (line.removesuffix(b"\n") for line in io.BytesIO(body) if line.strip())
        return list(islice(lines, count))
    if body.lstrip()[:1] != b"[":
        return None
    if body.count(b",") > FAST_SPLIT_COMMAS:
        return await _split_slowly(body, count)
    try:
        return [bytes(item) for item in islice(_raw_items(body), count)]
    except RecursionError:
        return await _split_slowly(body, count)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Problem(400, "not-json", f"the body is not a JSON array: {error}") from None


async def _split_slowly(body: bytes, count: int) -> list[bytes]:
    """The items of an array that has very many, or that is nested too deep.

    Only brackets and commas are looked at. Each item is checked when it is parsed.
    """
    items: list[bytes] = []
    depth = 0
    start = body.index(b"[") + 1
    for number, token in enumerate(_structure(body), 1):
        if number % YIELD_TOKENS == 0:
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
        if len(items) == count:
            return items
    if depth or body[start:].strip():
        raise Problem(400, "not-json", "the body is not a JSON array")
    return items


async def parse_all(messages: Sequence[bytes], parse: Callable[[bytes], T]) -> list[T]:
    """What `parse` makes of each message; other requests run in between."""
    parsed: list[T] = []
    unyielded_bytes = 0
    for message in messages:
        parsed.append(parse(message))
        unyielded_bytes += len(message)
        if unyielded_bytes > YIELD_BYTES:
            await asyncio.sleep(0)
            unyielded_bytes = 0
    return parsed


def parse_message(message: bytes, limit_bytes: int, *, is_whole_body: bool = False) -> Event | Rejected:
    """An event from its JSON: the object, or `{"payload": base64 of it}`.

    Raises Problem for a whole body that is not JSON.
    """
    try:
        if len(message) > limit_bytes * PAYLOAD_GROWTH:
            raise _too_large(limit_bytes, len(message))
        members = decode_json(message)
    except Rejected as error:
        if is_whole_body and error.limit is None:
            raise Problem(400, "not-json", f"the body {error.reason}") from None
        return error.with_traceback(None)  # the traceback would keep the message of each rejection of a batch in memory
    try:
        is_wrapped = type(members) is dict and "payload" in members and "session_id" not in members
        event = _unwrap(members["payload"]) if is_wrapped else message
        if len(event) > limit_bytes:
            raise _too_large(limit_bytes, len(event))
        return parse_event(event) if is_wrapped else check_event(members, message)
    except Rejected as error:
        return error.with_traceback(None)


def _unwrap(payload: Any) -> bytes:
    if type(payload) is not str:
        raise Rejected("payload", "must be a string of base64")
    try:
        return decode_base64(payload)
    except ValueError:
        raise Rejected("payload", "is not base64") from None


def _too_large(limit_bytes: int, value: int) -> Rejected:
    return Rejected("", f"the event is larger than {limit_bytes} bytes", limit=limit_bytes, value=value)
