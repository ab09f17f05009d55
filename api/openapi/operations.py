"""Operations: what each route takes and gives, as data. A route of api.app.ROUTES has its entry in OPERATIONS, at the end."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from api import schemas
from api.formats import FOREIGN_ROUTES, ForeignRoute
from api.query import PAGE_LIMIT_ROWS, PAGE_ROWS
from streams import TENANT_PATTERN

JSON, PROBLEM, NDJSON = "application/json", "application/problem+json", "application/x-ndjson"


class Parameter(Struct, frozen=True, kw_only=True):
    """What a request names besides its body. `{settings}` in a description are filled in."""

    name: str
    place: Literal["query", "path", "header"] = "query"
    kind: Any
    description: str
    required: bool = False


class Answer(Struct, frozen=True):
    """An answer of one status: what it means, its schemas by media type, and its headers; True: never without."""

    meaning: str
    content: dict[str, tuple[Any, ...]]
    headers: dict[str, bool] = {}


class Operation(Struct, frozen=True, kw_only=True):
    """A route and method. `act` is what the admission is asked for, None where no tenant is named; `codes` are of its problems.
    One of foreign clients names its tenant by its key, and its problems are refusals."""

    name: str
    summary: str
    act: Literal["append", "read"] | None = None
    parameters: tuple[Parameter, ...] = ()
    takes_events: bool = False
    is_foreign: bool = False
    answers: dict[int, Answer]
    codes: dict[int, tuple[str, ...]] = {}


# -- problems ------------------------------------------------------------------------------------------------------------

# A status' meaning, and the headers that no problem of it is without.
PROBLEMS: dict[int, tuple[str, tuple[str, ...]]] = {
    400: ("The request cannot be understood.", ()),
    401: ("The credential is missing, or nobody's.", ("WWW-Authenticate",)),
    403: ("Who sends the credential may not do this.", ()),
    404: ("There is nothing of that name for this tenant.", ()),
    408: ("The request did not come whole in time; the connection is closed.", ()),
    410: ("The tenant was erased.", ()),
    413: ("The request is too large.", ()),
    415: ("The body is encoded in a way that is not taken.", ()),
    429: ("Too much is sent; nothing of it was written, the same may be sent again later.", ("Retry-After",)),
    431: ("Headers and target are too large.", ()),
    500: ("The server failed; its log says more.", ()),
    503: ("Not now; the same may be sent again.", ("Retry-After",)),
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
    place="header",
    kind=Annotated[str, Meta(pattern=f"^{TENANT_PATTERN}$", examples=["acme"])],
    description="The tenant that the request speaks for.",
)
ENCODING = Parameter(
    name="Content-Encoding", place="header", kind=Literal["gzip", "identity", ""], description="How the body is encoded."
)
AFTER = Parameter(
    name="after",
    kind=Annotated[int, Meta(ge=0, le=2**53)],
    description="Answer once the tables hold this position, {read_wait_timeout_seconds} s later at most.",
)
PAGE = (
    Parameter(
        name="limit",
        kind=Annotated[int, Meta(ge=1, le=PAGE_LIMIT_ROWS, extra_json_schema={"default": PAGE_ROWS})],
        description="Rows of a page.",
    ),
    Parameter(
        name="cursor",
        kind=Annotated[str, Meta(extra_json_schema={"format": "cursor"})],
        description="Where the page begins: `next` of the page before.",
    ),
)
FILTERS = (
    Parameter(name="session_id", kind=str, description="Only of this session."),
    Parameter(name="event_type", kind=str, description="Only of this type; sessions that hold such an event."),
    Parameter(name="since", kind=schemas.Moment, description="From this event time on."),
    Parameter(name="until", kind=schemas.Moment, description="Before this event time."),
)
OF_USER = Parameter(name="user_id", kind=str, description="Only of this user.")

# -- the operations ------------------------------------------------------------------------------------------------------

RATE = {"Retry-After": True, "RateLimit-Limit": False, "RateLimit-Remaining": False, "RateLimit-Reset": False}
Batch = schemas.Receipts

OPERATIONS: dict[str, Operation] = {
    "POST /api/events": Operation(
        name="postEvents",
        summary="Append one event, or a batch of at most {max_request_events}; a receipt for each.",
        act="append",
        parameters=(ENCODING,),
        takes_events=True,
        answers={
            200: Answer("All were accepted before; there was nothing to write.", {JSON: (schemas.Duplicate, Batch)}),
            202: Answer("Accepted, on disk; of a batch, some may be duplicates.", {JSON: (schemas.Accepted, Batch)}),
            207: Answer("Some of the batch were accepted or are duplicates, others were not.", {JSON: (Batch,)}),
            409: Answer("Another event has this name.", {JSON: (schemas.Conflict,)}),
            422: Answer("The event cannot be stored; none of the batch can.", {JSON: (schemas.Rejected, Batch)}),
            429: Answer("Too much is sent; the same may be sent again later.", {JSON: (schemas.Limited, Batch)}, RATE),
        },
        codes=CODES_OF_APPENDS,
    ),
    "GET /api/events": Operation(
        name="getEvents",
        summary="Events, newest first by event time, then position.",
        act="read",
        parameters=(*FILTERS, *PAGE, AFTER),
        answers={200: Answer("A page of events.", {JSON: (schemas.EventsPage,)})},
    ),
    "GET /api/receipts": Operation(
        name="findReceipt",
        summary="What became of the event of a name, within the window.",
        act="read",
        parameters=(
            Parameter(name="event_hash", kind=schemas.Hash, description="The event's name, from its receipt.", required=True),
            AFTER,
        ),
        answers={200: Answer("What became of it.", {JSON: (schemas.Outcome,)})},
        codes={404: ("receipt-unknown",), 500: ("log-refused",)},
    ),
    "GET /api/receipts/{position}": Operation(
        name="getReceipt",
        summary="What became of the event at a position, for ever.",
        act="read",
        parameters=(
            Parameter(
                name="position", place="path", kind=schemas.Position, description="The position, from its receipt.", required=True
            ),
            AFTER,
        ),
        answers={200: Answer("What became of it.", {JSON: (schemas.Outcome,)})},
        codes={404: ("receipt-unknown",), 500: ("log-refused",)},
    ),
    "GET /api/sessions": Operation(
        name="getSessions",
        summary="Sessions, the one with the newest event first.",
        act="read",
        parameters=(*FILTERS, OF_USER, *PAGE, AFTER),
        answers={200: Answer("A page of sessions.", {JSON: (schemas.SessionsPage,)})},
    ),
    "GET /api/sessions/{session_id}": Operation(
        name="getSession",
        summary="One session with a page of its events.",
        act="read",
        parameters=(
            Parameter(name="session_id", place="path", kind=str, description="The session; it may hold slashes.", required=True),
            *PAGE,
            AFTER,
        ),
        answers={200: Answer("The session.", {JSON: (schemas.SessionWithEvents,)})},
        codes={404: ("session-unknown",)},
    ),
    "GET /healthz": Operation(
        name="healthz",
        summary="Whether the process lives.",
        answers={200: Answer("It does.", {JSON: (schemas.Alive,)})},
    ),
    "GET /readyz": Operation(
        name="readyz",
        summary="Whether the process may be given events.",
        answers={
            200: Answer("It may.", {JSON: (schemas.Readiness,)}),
            503: Answer("It may not, for these reasons.", {JSON: (schemas.Readiness,)}, {"Retry-After": False}),
        },
    ),
    "GET /metrics": Operation(
        name="metrics",
        summary="Figures of every tenant, of the server and of this process, for Prometheus. With AUTH=keys for METRICS_TOKEN.",
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


def _of_foreign(method: str, foreign: ForeignRoute) -> Operation:
    """The operation of a path of foreign clients."""
    places = [
        Parameter(name=name, place="path", kind=kind, description="What is sent, or its key.", required=True)
        for name, kind in foreign.parameters.items()
    ]
    meaning = "Everything is in the log, or was; what is no event is set aside."
    return Operation(
        name=f"{foreign.name}{method.capitalize()}",
        summary=foreign.summary,
        act="append",
        is_foreign=True,
        parameters=tuple(places),
        answers={foreign.success: Answer(meaning, dict.fromkeys(foreign.media_types, (Any,)) if foreign.success == 200 else {})},
        codes=CODES_OF_APPENDS | {400: ("not-understood", "not-gzip"), 429: ("too-many-new-tenants", "limited")},
    )


OPERATIONS |= {
    f"{method} {foreign.path}": _of_foreign(method, foreign) for foreign in FOREIGN_ROUTES for method in foreign.methods
}
