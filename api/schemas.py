"""Schemas: requests and answers as clients see them.

The OpenAPI document is made of them, and their docstrings are its descriptions.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from streams.validation import NAME_LIMIT_BYTES

Name = Annotated[str, Meta(min_length=1, max_length=NAME_LIMIT_BYTES, description=f"At most {NAME_LIMIT_BYTES} bytes of UTF-8.")]
Moment = Annotated[datetime, Meta(tz=True, description="RFC 3339, between the years 1 and 9999 in UTC.")]
Hash = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
Position = Annotated[int, Meta(ge=1)]
Cursor = Annotated[str, Meta(description="The `cursor` of the next page; null on the last.")]

# -- requests --------------------------------------------------------------------------------------------------------


class Event(Struct, kw_only=True):
    """An event as a client sends it.

    Every other member is a property. Properties may not contain a NUL character, an integer of more than 64 bits, or a repeated
    key, and may be nested 100 levels deep.
    """

    session_id: Name
    event_type: Name
    timestamp: Annotated[Moment, Meta(examples=["2026-01-01T10:00:00Z"])]
    event_id: Annotated[
        Name | None, Meta(description="Identifies the event. Without it, the session, type and timestamp do.")
    ] = None


class WrappedEvent(Struct):
    """An event as the base64 of its JSON.

    The base64 may be standard or URL-safe, padded or not.
    """

    payload: Annotated[
        str,
        Meta(
            examples=[
                "eyJzZXNzaW9uX2lkIjoiUzEyMyIsImV2ZW50X3R5cGUiOiJwYWdlX3ZpZXciLCJ0aW1lc3RhbXAiOiIyMDI2LTAxLTAxVDEwOjAwOjAwWiJ9"
            ],
            extra_json_schema={"format": "payload", "contentEncoding": "base64", "contentMediaType": "application/json"},
        ),
    ]


# -- receipts ------------------------------------------------------------------------------------------------------------


class Accepted(Struct, tag_field="status", tag="accepted"):
    """The event is in the log, at this position."""

    event_hash: Hash
    position: Position


class Duplicate(Struct, tag_field="status", tag="duplicate"):
    """The event was accepted before, at this position."""

    event_hash: Hash
    position: Position


class Conflict(Struct, tag_field="status", tag="conflict"):
    """An event with the same identity but other content is in the log.

    It is at this position. Nothing was written.
    """

    event_hash: Hash
    position: Position


class Rejected(Struct, tag_field="status", tag="rejected"):
    """The event is invalid, for this reason.

    `field` names the invalid field; it is empty if the event as a whole is invalid.
    """

    event_hash: None
    position: None
    field: str
    reason: str
    limit: int | UnsetType = UNSET
    value: int | UnsetType | None = UNSET


class Limited(Struct, tag_field="status", tag="limited"):
    """The tenant sends more than its limits allow.

    `reason` names the limit. The same event may be sent again later.
    """

    event_hash: Hash
    position: None
    reason: Literal["events_per_second", "bytes_per_second", "events_per_day"]
    limit: int


Receipt = Accepted | Duplicate | Conflict | Rejected | Limited


class Receipts(Struct):
    """A receipt for each event of a batch, in the order sent."""

    receipts: list[Receipt]


# -- outcomes of events ---------------------------------------------------------------------------------------------

Others = Annotated[
    "list[Outcome] | UnsetType",
    Meta(description="Only in an answer by event_hash: other events with this hash."),
]


class Queued(Struct, kw_only=True, tag_field="status", tag="queued"):
    """The event is in the log and not yet in the tables."""

    event_hash: Hash | None
    position: Position
    others: Others = UNSET


class Projected(Struct, kw_only=True, tag_field="status", tag="projected"):
    """The event is in the tables."""

    event_hash: Hash
    position: Position
    others: Others = UNSET


class LateDuplicate(Struct, kw_only=True, tag_field="status", tag="late_duplicate"):
    """The event was sent again after the deduplication window.

    The tables have it once, from `first_position`.
    """

    event_hash: Hash | None
    position: Position
    first_position: Position | UnsetType | None = UNSET
    others: Others = UNSET


class Quarantined(Struct, kw_only=True, tag_field="status", tag="quarantined"):
    """The record could not become a row. It is in quarantine, for this reason."""

    event_hash: Hash | None
    position: Position
    reason: str
    detail: str
    others: Others = UNSET


class Dropped(Struct, kw_only=True, tag_field="status", tag="dropped"):
    """The record could not become a row, and was dropped from quarantine.

    It is still in the log.
    """

    event_hash: Hash | None
    position: Position
    others: Others = UNSET


class Erased(Struct, kw_only=True, tag_field="status", tag="erased"):
    """The event was erased from the log and the tables, with its data subject."""

    event_hash: None
    position: Position


Outcome = Queued | Projected | LateDuplicate | Quarantined | Dropped | Erased

# -- rows ----------------------------------------------------------------------------------------------------------------


class EventRow(Struct):
    """An event in the tables.

    `timestamp` is the text that was sent, `timestamp_utc` the same moment in UTC.
    """

    position: Position
    event_hash: Hash
    event_id: str | None
    session_id: Annotated[str, Meta(description="The session that was sent; empty if the event has none.")]
    session: Annotated[
        str | None,
        Meta(description="The session that the event belongs to: its own or a derived one; null if its actor is unknown."),
    ]
    event_type: str
    timestamp: str
    timestamp_utc: Moment
    received_at: Moment
    properties: dict[str, Any]


class SessionRow(Struct):
    """A session in the tables: the sum of its events.

    A derived session consists of events that were sent without one; its name begins with `~`. The ids are the smallest that its
    events contain or that links give.
    """

    session_id: str
    user_id: str | None
    anonymous_id: str | None
    started_at: Moment
    last_event_at: Moment
    event_count: Annotated[int, Meta(ge=1)]
    first_event_type: str
    last_event_type: str


class EventsPage(Struct):
    """A page of events, newest first by event time, then position."""

    events: list[EventRow]
    next: Cursor | None


class SessionsPage(Struct):
    """A page of sessions; the session with the newest event is first."""

    sessions: list[SessionRow]
    next: Cursor | None


class SessionWithEvents(SessionRow):
    """A session, and a page of its events, newest first."""

    events: list[EventRow]
    next: Cursor | None


# -- the process ---------------------------------------------------------------------------------------------------------


class ProblemDetails(Struct, kw_only=True):
    """Why a request failed (RFC 9457).

    `code` is stable. `limit` and `value` are given where a limit was exceeded.
    """

    type: str
    code: str
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: str
    parameter: str | UnsetType = UNSET
    limit: float | UnsetType = UNSET
    value: float | str | UnsetType = UNSET


class Refusal(Struct, frozen=True):
    """Why a request of a foreign client failed.

    The members are those that foreign SDKs look for. `code` is the HTTP status, `error` is stable. `missing_field` tells
    Amplitude's SDKs not to send the same request again.
    """

    code: Annotated[int, Meta(ge=400, le=599)]
    error: str
    message: str
    detail: str
    status: Literal[0] = 0
    missing_field: str | UnsetType = UNSET


class Failure(Struct, frozen=True):
    """A reason why the process is not ready."""

    code: str
    detail: str


class Readiness(Struct):
    """Whether the process is ready for events, and the reasons if not."""

    status: Literal["ready", "not ready"]
    failures: list[Failure]


class Alive(Struct):
    """The process runs."""

    status: Literal["ok"]
