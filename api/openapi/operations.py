"""Operations: the parameters, answers and problems of each route, as data.

Each route of api.app.ROUTES has its entry in OPERATIONS.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from api.formats import FOREIGN_ROUTES, ForeignRoute
from api.query import PAGE_LIMIT_ROWS, PAGE_ROWS
from api.schemas import (
    Accepted,
    Alive,
    Conflict,
    Duplicate,
    EventsPage,
    Hash,
    Limited,
    Moment,
    Outcome,
    Position,
    Readiness,
    Receipts,
    Rejected,
    SessionsPage,
    SessionWithEvents,
)
from streams.keys import TENANT_PATTERN

JSON, PROBLEM, NDJSON = "application/json", "application/problem+json", "application/x-ndjson"


class Parameter(Struct, frozen=True, kw_only=True):
    """A parameter of a request. `{settings}` in its description are filled in."""

    name: str
    location: Literal["query", "path", "header"] = "query"
    kind: Any
    description: str
    required: bool = False


class Answer(Struct, frozen=True):
    """An answer of a status: its meaning, schemas by media type, headers.

    A header with True is always sent.
    """

    meaning: str
    content: dict[str, tuple[Any, ...]]
    headers: dict[str, bool] = {}


class Operation(Struct, frozen=True, kw_only=True):
    """A route and method.

    - `act` is what a tenant must be permitted to do; None if the operation concerns no tenant.
    - `codes` are the codes of its problems, by status, beyond those of all operations.
    - `is_foreign` means that foreign clients call it: a key names the tenant, and problems are answered as refusals.
    """

    name: str
    summary: str
    act: Literal["append", "read"] | None = None
    parameters: tuple[Parameter, ...] = ()
    takes_events: bool = False
    is_foreign: bool = False
    answers: dict[int, Answer]
    codes: dict[int, tuple[str, ...]] = {}


# -- problems ------------------------------------------------------------------------------------------------------------

# The meaning of each status, and the headers that all its problems have.
PROBLEMS: dict[int, tuple[str, tuple[str, ...]]] = {
    400: ("The request cannot be understood.", ()),
    401: ("The credential is missing or invalid.", ("WWW-Authenticate",)),
    403: ("The credential does not permit this.", ()),
    404: ("The tenant has nothing with this name.", ()),
    408: ("The request took too long to arrive; the connection is closed.", ()),
    410: ("The tenant was deleted.", ()),
    413: ("The request is too large.", ()),
    415: ("The encoding of the body is not supported.", ()),
    429: ("A limit was exceeded. Nothing was written; the same request may be sent again later.", ("Retry-After",)),
    431: ("The headers and target are too large.", ()),
    500: ("The server failed; its log has the details.", ()),
    503: ("The server cannot answer now; the same request may be sent again.", ("Retry-After",)),
}
CODES_OF_ALL: dict[int, tuple[str, ...]] = {
    400: ("not-http", "upgrade-unsupported"),
    408: ("request-too-slow",),
    431: ("headers-too-large",),
    500: ("internal-error",),
    503: ("too-many-connections",),
}
CODES_OF_TENANTS: dict[int, tuple[str, ...]] = {400: ("tenant-invalid", "tenant-ambiguous"), 503: ("log-unavailable",)}
CODES_OF_MODE: dict[str, dict[int, tuple[str, ...]]] = {
    "open": {400: ("tenant-missing",)},
    "keys": {
        400: ("credential-ambiguous",),
        401: ("credential-missing", "credential-invalid", "credential-unknown", "token-invalid"),
        403: ("role-insufficient", "tenant-mismatch"),
        503: ("token-keys-unavailable",),
    },
}
CODES_OF_READS: dict[int, tuple[str, ...]] = {400: ("invalid-parameter",), 503: ("tables-unavailable", "not-yet-projected")}
CODES_OF_APPENDS: dict[int, tuple[str, ...]] = {
    400: ("not-json", "not-gzip"),
    410: ("tenant-deleted",),
    413: ("request-too-large", "too-many-events"),
    415: ("encoding-unsupported",),
    429: ("too-many-new-tenants",),
    500: ("log-refused",),
    503: ("log-full", "overloaded"),
}

# -- parameters ----------------------------------------------------------------------------------------------------------

TENANT = Parameter(
    name="X-Tenant-ID",
    location="header",
    kind=Annotated[str, Meta(pattern=f"^{TENANT_PATTERN}$", examples=["acme"])],
    description="The tenant of the request.",
)
ENCODING = Parameter(
    name="Content-Encoding", location="header", kind=Literal["gzip", "identity", ""], description="The encoding of the body."
)
AFTER = Parameter(
    name="after",
    kind=Annotated[int, Meta(ge=0, le=2**53)],
    description="Wait until the tables have this position, for {read_wait_timeout_seconds} s at most.",
)
PAGE = (
    Parameter(
        name="limit",
        kind=Annotated[int, Meta(ge=1, le=PAGE_LIMIT_ROWS, extra_json_schema={"default": PAGE_ROWS})],
        description="Rows per page.",
    ),
    Parameter(
        name="cursor",
        kind=Annotated[str, Meta(extra_json_schema={"format": "cursor"})],
        description="Where the page begins: `next` of the previous page.",
    ),
)
FILTERS = (
    Parameter(name="session_id", kind=str, description="Only events of this session, or only this session."),
    Parameter(name="event_type", kind=str, description="Only events of this type, or sessions with such an event."),
    Parameter(name="since", kind=Moment, description="From this event time on."),
    Parameter(name="until", kind=Moment, description="Before this event time."),
)
OF_USER = Parameter(name="user_id", kind=str, description="Only sessions of this user.")

# -- the operations ------------------------------------------------------------------------------------------------------

RATE = {"Retry-After": True, "RateLimit-Limit": False, "RateLimit-Remaining": False, "RateLimit-Reset": False}

OPERATIONS: dict[str, Operation] = {
    "GET /": Operation(
        name="welcome",
        summary="What this server is, and where to look next.",
        answers={200: Answer("A page for browsers, text for others.", {"text/plain": (str,), "text/html": (str,)})},
    ),
    "POST /api/events": Operation(
        name="postEvents",
        summary="Append an event, or a batch of up to {max_request_events}. Each event gets a receipt.",
        act="append",
        parameters=(ENCODING,),
        takes_events=True,
        answers={
            200: Answer("All events were accepted before; nothing was written.", {JSON: (Duplicate, Receipts)}),
            202: Answer("The events are accepted and on disk. In a batch, some may be duplicates.", {JSON: (Accepted, Receipts)}),
            207: Answer("Some events of the batch are accepted or duplicates, others are not.", {JSON: (Receipts,)}),
            409: Answer("Another event has this identity.", {JSON: (Conflict,)}),
            422: Answer("The event is invalid; in a batch, none was accepted.", {JSON: (Rejected, Receipts)}),
            429: Answer(
                "A limit of the tenant was exceeded; the same request may be sent again later.", {JSON: (Limited, Receipts)}, RATE
            ),
        },
        codes=CODES_OF_APPENDS,
    ),
    "GET /api/events": Operation(
        name="getEvents",
        summary="Events, newest first by event time, then position.",
        act="read",
        parameters=(*FILTERS, *PAGE, AFTER),
        answers={200: Answer("A page of events.", {JSON: (EventsPage,)})},
    ),
    "GET /api/receipts": Operation(
        name="findReceipt",
        summary="The outcome of an event, by its hash, within the deduplication window.",
        act="read",
        parameters=(
            Parameter(name="event_hash", kind=Hash, description="The event_hash in the event's receipt.", required=True),
            AFTER,
        ),
        answers={200: Answer("The outcome of the event.", {JSON: (Outcome,)})},
        codes={404: ("receipt-unknown",), 500: ("log-refused",)},
    ),
    "GET /api/receipts/{position}": Operation(
        name="getReceipt",
        summary="The outcome of the event at a position. It is kept permanently.",
        act="read",
        parameters=(
            Parameter(
                name="position", location="path", kind=Position, description="The position in the event's receipt.", required=True
            ),
            AFTER,
        ),
        answers={200: Answer("The outcome of the event.", {JSON: (Outcome,)})},
        codes={404: ("receipt-unknown",), 500: ("log-refused",)},
    ),
    "GET /api/sessions": Operation(
        name="getSessions",
        summary="Sessions; the session with the newest event is first.",
        act="read",
        parameters=(*FILTERS, OF_USER, *PAGE, AFTER),
        answers={200: Answer("A page of sessions.", {JSON: (SessionsPage,)})},
    ),
    "GET /api/sessions/{session_id}": Operation(
        name="getSession",
        summary="A session with a page of its events.",
        act="read",
        parameters=(
            Parameter(
                name="session_id", location="path", kind=str, description="The session; it may contain slashes.", required=True
            ),
            *PAGE,
            AFTER,
        ),
        answers={200: Answer("The session.", {JSON: (SessionWithEvents,)})},
        codes={404: ("session-unknown",)},
    ),
    "GET /healthz": Operation(
        name="healthz",
        summary="Whether the process runs.",
        answers={200: Answer("It runs.", {JSON: (Alive,)})},
    ),
    "GET /readyz": Operation(
        name="readyz",
        summary="Whether the process is ready for events.",
        answers={
            200: Answer("It is ready.", {JSON: (Readiness,)}),
            503: Answer("It is not ready, for these reasons.", {JSON: (Readiness,)}, {"Retry-After": False}),
        },
    ),
    "GET /metrics": Operation(
        name="metrics",
        summary="Figures of all tenants, the server and this process, for Prometheus. With AUTH=keys it needs METRICS_TOKEN.",
        answers={200: Answer("Prometheus' text format.", {"text/plain": (str,)})},
        codes={
            400: ("credential-ambiguous",),
            401: ("credential-missing", "credential-invalid", "credential-unknown"),
            403: ("metrics-closed",),
            503: ("log-unavailable", "tables-unavailable"),
        },
    ),
    "GET /openapi.json": Operation(
        name="openapi",
        summary="This document.",
        answers={200: Answer("OpenAPI 3.1.", {JSON: (dict[str, Any],)})},
    ),
}


def _foreign_operation(method: str, route: ForeignRoute) -> Operation:
    """The operation of a foreign route."""
    parameters = [
        Parameter(name=name, location="path", kind=kind, description="The kind of call, or the key.", required=True)
        for name, kind in route.parameters.items()
    ]
    meaning = "All messages are in the log. Messages that are no valid events are kept as dead letters."
    return Operation(
        name=f"{route.name}{method.capitalize()}",
        summary=route.summary,
        act="append",
        is_foreign=True,
        parameters=tuple(parameters),
        answers={route.success: Answer(meaning, dict.fromkeys(route.media_types, (Any,)) if route.success == 200 else {})},
        codes=CODES_OF_APPENDS | {400: ("not-understood", "not-gzip"), 429: ("too-many-new-tenants", "limited")},
    )


OPERATIONS |= {
    f"{method} {route.path}": _foreign_operation(method, route) for route in FOREIGN_ROUTES for method in route.methods
}
