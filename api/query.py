"""The query endpoints: outcomes of events, events, sessions.

A tenant sees its own data only.
"""

import asyncio
import base64
import binascii
import time
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from api.http import Problem
from projector import Filters, PageKey, Store, outcome_of, row_of
from streams import Log, Record, Rejected, control, event_identity, parse_body
from streams.validation import INTEGER_LIMIT, microseconds

PAGE_ROWS = 100
PAGE_LIMIT_ROWS = 1_000
WAIT_PAUSE_SECONDS = 0.01
FILTERS = frozenset({"session_id", "event_type", "since", "until", "cursor", "limit", "after"})

_encode = msgspec.json.Encoder().encode


async def get_events(request: Request) -> Response:
    """GET /api/events: a page of events, newest first."""
    return await _page(request, FILTERS, "events", _store(request).queries.events, _event_key)


async def get_sessions(request: Request) -> Response:
    """GET /api/sessions: a page of sessions, by their newest event."""
    return await _page(request, FILTERS | {"user_id"}, "sessions", _store(request).queries.sessions, _session_key)


async def get_session(request: Request) -> Response:
    """GET /api/sessions/{session_id}: a session and a page of its events."""
    tenant, filters, page_key, limit = await _parse_query(request, frozenset({"cursor", "limit", "after"}))
    session_id = request.path_params["session_id"]
    filters = msgspec.structs.replace(filters, session_id=session_id)
    session, rows = await run_in_threadpool(_store(request).queries.session, tenant, filters, page_key, limit + 1)
    if session is None:
        raise Problem(404, "session-unknown", f"there is no session {session_id!r}")
    page, cursor = _page_of(rows, limit, _event_key)
    return _json({**_public(session), "events": page, "next": cursor})


async def get_receipt(request: Request) -> Response:
    """GET /api/receipts/{position}: the outcome of the event there."""
    tenant, *_ = await _parse_query(request, frozenset({"after"}))
    position = request.path_params["position"]
    receipt = await _outcome(request, tenant, int(position)) if _is_number(position) and int(position) else None
    if receipt is None:
        raise Problem(404, "receipt-unknown", "there is no event at this position")
    return _json(receipt)


async def find_receipt(request: Request) -> Response:
    """GET /api/receipts?event_hash=…: the outcome of the event with this hash.

    It is answered within the deduplication window. If several events share the hash, the others follow the first.
    """
    tenant, *_ = await _parse_query(request, frozenset({"event_hash", "after"}))
    event_hash = request.query_params.get("event_hash", "")
    if len(event_hash) != 32 or set(event_hash) - set("0123456789abcdef"):
        detail = "event_hash must be 32 hexadecimal digits"
        raise Problem(400, "invalid-parameter", detail, parameter="event_hash", value=event_hash)
    positions = await _log(request).positions_of(tenant, event_hash)
    receipts = [receipt for position in positions if (receipt := await _outcome(request, tenant, position))]
    if not receipts:
        raise Problem(404, "receipt-unknown", "no event with this hash was accepted within the deduplication window")
    first, *others = receipts
    return _json({**first, "others": others} if others else first)


async def _outcome(request: Request, tenant: str, position: int) -> dict[str, Any] | None:
    """The outcome of the event at a position; None if there is no event."""
    outcome = await run_in_threadpool(_store(request).queries.receipt, tenant, position)
    if outcome["status"] in ("projected", "erased"):
        return outcome
    record = await _log(request).find(tenant, position)
    if record is None:
        return None if outcome["status"] == "queued" else outcome
    if control.is_erased(record) and outcome["status"] == "queued":
        return outcome | {"status": "erased"}
    if record.version == control.VERSION and outcome["status"] not in ("quarantined", "dropped"):
        return None
    first_position = None
    try:
        outcome["event_hash"], _ = event_identity(tenant, parse_body(record.body))
        if outcome["status"] == "late_duplicate":
            first_position = await run_in_threadpool(_first_position, _store(request), tenant, record)
    except Rejected:
        pass  # the record is not a valid event
    if outcome["status"] == "late_duplicate":
        outcome["first_position"] = first_position
    return outcome


def _first_position(store: Store, tenant: str, record: Record) -> int | None:
    """The position of the event that a late duplicate repeats; else None."""
    row = row_of(tenant, record)
    known = store.queries.known_event(row)
    return known.position if known is not None and outcome_of(row, known) == "late_duplicate" else None


async def _page(
    request: Request,
    allowed: frozenset[str],
    name: str,
    read: Callable[..., list[dict[str, Any]]],
    page_key_of: Callable[[dict[str, Any]], PageKey],
) -> Response:
    tenant, filters, page_key, limit = await _parse_query(request, allowed)
    rows = await run_in_threadpool(read, tenant, filters, page_key, limit + 1)
    page, cursor = _page_of(rows, limit, page_key_of)
    return _json({name: page, "next": cursor})


async def _parse_query(request: Request, allowed: frozenset[str]) -> tuple[str, Filters, PageKey | None, int]:
    """The tenant, filters, page key and page size of a request.

    Waits for the position in `after`. Raises Problem.
    """
    tenant: str = await request.app.state.admission.admit(request.scope["headers"], "read")
    query = request.query_params
    for parameter in query:
        if parameter not in allowed or len(query.getlist(parameter)) > 1:
            detail = f"the parameters of this path are {', '.join(sorted(allowed))}, each of them once"
            raise Problem(400, "invalid-parameter", detail, parameter=parameter)
    filters = Filters(
        session_id=query.get("session_id"),
        user_id=query.get("user_id"),
        event_type=query.get("event_type"),
        since_us=_moment(query.get("since"), "since"),
        until_us=_moment(query.get("until"), "until"),
    )
    limit = _number(query.get("limit", str(PAGE_ROWS)), "limit", 1, PAGE_LIMIT_ROWS)
    page_key = _page_key_in(query["cursor"]) if "cursor" in query else None
    if "after" in query:
        await _wait_for(request, tenant, _number(query["after"], "after", 0, 2**53))
    return tenant, filters, page_key, limit


async def _wait_for(request: Request, tenant: str, position: int) -> None:
    """Wait until the tables have a position: a client reads its own writes.

    Raises Problem at the deadline.
    """
    timeout_seconds = request.app.state.settings.read_wait_timeout_seconds
    deadline = time.monotonic() + timeout_seconds
    pause = WAIT_PAUSE_SECONDS
    while (checkpoint := (await run_in_threadpool(_store(request).checkpoint, tenant)).position) < position:
        if time.monotonic() > deadline:
            detail = f"the tables are at position {checkpoint}; they did not reach {position} within {timeout_seconds} s"
            raise Problem(503, "not-yet-projected", detail, limit=timeout_seconds, value=checkpoint)
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 0.1)


def _page_of(
    rows: list[dict[str, Any]], limit: int, page_key_of: Callable[[dict[str, Any]], PageKey]
) -> tuple[list[dict[str, Any]], str | None]:
    """The rows of a page, and the cursor of the next page if there is one.

    `rows` holds one row more than the page if there is a next page.
    """
    cursor = None
    if len(rows) > limit:
        time_us, position = page_key_of(rows[limit - 1])
        cursor = base64.urlsafe_b64encode(f"{time_us}.{position}".encode()).decode().rstrip("=")
    return [_public(row) for row in rows[:limit]], cursor


def _event_key(row: dict[str, Any]) -> PageKey:
    return row["timestamp_us"], row["position"]


def _session_key(row: dict[str, Any]) -> PageKey:
    return row["last_event_at_us"], row["first_position"]


def _public(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not key.endswith("_us") and key != "first_position"}


def _page_key_in(cursor: str) -> PageKey:
    try:
        time_us, position = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).split(b".")
        page_key = int(time_us), int(position)
        if max(map(abs, page_key)) >= INTEGER_LIMIT:
            raise ValueError
        return page_key
    except (ValueError, binascii.Error):
        raise Problem(400, "invalid-parameter", "cursor must be the `next` of an earlier page", parameter="cursor") from None


def _moment(text: str | None, parameter: str) -> int | None:
    try:
        return None if text is None else microseconds(text)
    except Rejected as error:
        raise Problem(400, "invalid-parameter", f"{parameter} {error.reason}", parameter=parameter, value=text) from None


def _number(text: str, parameter: str, low: int, high: int) -> int:
    if not _is_number(text) or not low <= int(text) <= high:
        detail = f"{parameter} must be a whole number from {low} to {high}"
        raise Problem(400, "invalid-parameter", detail, parameter=parameter, limit=high, value=text)
    return int(text)


def _is_number(text: str) -> bool:
    """Whether a text is a whole number in the range of positions."""
    return text.isascii() and text.isdigit() and len(text) <= 16


def _json(value: Any) -> Response:
    return Response(_encode(value), media_type="application/json")


def _store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


def _log(request: Request) -> Log:
    log: Log = request.app.state.log
    return log
