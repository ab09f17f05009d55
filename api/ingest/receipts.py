"""Receipts: the answer to each event that a client sent. Pure."""

import math
from collections.abc import Sequence
from typing import Any

from streams import Event, Limits, Receipt, Rejected

STATUS_OF_SINGLE = {"accepted": 202, "duplicate": 200, "conflict": 409, "rejected": 422, "limited": 429}

HeaderList = list[tuple[bytes, bytes]]


def answer_of(
    parsed: Sequence[Event | Rejected], appended: Sequence[Receipt], limits: Limits, *, is_batch: bool
) -> tuple[int, dict[str, Any], HeaderList]:
    """The status, content and rate-limit headers of an answer.

    `appended` holds the log's receipts of the events in `parsed`, in the same order.
    """
    remaining = iter(appended)
    receipts = [receipt_of(next(remaining), limits) if isinstance(item, Event) else rejection_of(item) for item in parsed]
    headers = rate_limit_headers(appended, limits)
    if is_batch:
        return batch_status(receipts), {"receipts": receipts}, headers
    return STATUS_OF_SINGLE[receipts[0]["status"]], receipts[0], headers


def receipt_of(receipt: Receipt, limits: Limits) -> dict[str, Any]:
    """The receipt of an event that reached the log."""
    members = {"status": receipt.status, "event_hash": receipt.event_hash, "position": receipt.position}
    if receipt.limit:
        members |= {"reason": receipt.limit, "limit": getattr(limits, receipt.limit)}
    return members


def rejection_of(error: Rejected) -> dict[str, Any]:
    """The receipt of an invalid event: the field and the reason.

    `limit` and `value` are added when a limit was exceeded.
    """
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


def rate_limit_headers(appended: Sequence[Receipt], limits: Limits) -> HeaderList:
    """Retry-After and RateLimit-*, if any event was limited."""
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


def batch_status(receipts: Sequence[dict[str, Any]]) -> int:
    """The HTTP status for the receipts of a batch."""
    statuses = {receipt["status"] for receipt in receipts}
    if not statuses & {"conflict", "rejected", "limited"}:
        return 202 if "accepted" in statuses else 200
    if statuses & {"accepted", "duplicate"}:
        return 207
    return 429 if "limited" in statuses else 422
