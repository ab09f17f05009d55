"""The OpenAPI document, made of routes, settings and operations. Pure.

It is made once, when the application is created.
"""

import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.openapi.operations import (
    CODES_OF_ALL,
    CODES_OF_MODE,
    CODES_OF_READS,
    CODES_OF_TENANTS,
    JSON,
    NDJSON,
    OPERATIONS,
    PROBLEM,
    PROBLEMS,
    TENANT,
    Answer,
    Operation,
    Parameter,
)
from api.schemas import Event, ProblemDetails, Refusal, WrappedEvent
from streams.runtime import Settings

DESCRIPTION = (
    "Takes events over HTTP and never loses or doubles an event. Errors are problems (RFC 9457) with a stable `code`. "
    "An unknown path is answered 404, and a method that a path does not have 405 with `Allow`. "
    "`HEAD` is answered wherever `GET` is."
)
HEADERS: dict[str, tuple[str, Any]] = {
    "Retry-After": ("Seconds after which the same request may succeed.", int),
    "WWW-Authenticate": ("How to authenticate.", str),
    "RateLimit-Limit": ("The limit that was exceeded.", int),
    "RateLimit-Remaining": ("How much of it is left.", int),
    "RateLimit-Reset": ("Seconds until it is available again.", int),
}
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key, or a token (JWT) of a trusted service."},
    "basic": {"type": "http", "scheme": "basic", "description": "A key as the user name."},
    "writeKey": {"type": "apiKey", "in": "header", "name": "X-Write-Key", "description": "A key."},
}
EVENTS = (
    "An event may have {max_event_bytes} bytes, a batch {max_request_events} events, and a request {max_request_bytes} bytes "
    "after unpacking."
)


async def openapi(request: Request) -> Response:
    """GET /openapi.json: the document."""
    return Response(request.app.state.document, media_type=JSON)


def operations_of(routes: Sequence[Route]) -> Iterator[tuple[str, str]]:
    """Each method and path of the routes, as the documentation writes them.

    HEAD is implied by GET.
    """
    for route in routes:
        if not route.include_in_schema:  # a path that is documented without its last slash
            continue
        for method in sorted((route.methods or set()) - {"HEAD"}):
            yield method, re.sub(r":[a-z]+}", "}", route.path)


def document_of(routes: Sequence[Route], settings: Settings) -> bytes:
    """The document of an application, as JSON."""
    limits = {name: value for name, value in msgspec.structs.asdict(settings).items() if type(value) in (int, float)}
    schemas: dict[str, Any] = {}
    paths: dict[str, dict[str, Any]] = {}
    for method, path in operations_of(routes):
        operation = OPERATIONS[f"{method} {path}"]
        paths.setdefault(path, {})[method.lower()] = _operation(operation, settings.auth, limits, schemas)
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Penstock", "version": version("penstock"), "description": DESCRIPTION},
        "paths": paths,
        "components": {"schemas": schemas} | ({"securitySchemes": SCHEMES} if settings.auth == "keys" else {}),
    }
    return msgspec.json.encode(document)


def _operation(operation: Operation, auth: str, limits: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    parameters = operation.parameters
    if operation.act:
        parameters = (msgspec.structs.replace(TENANT, required=auth == "open" and not operation.is_foreign), *parameters)
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary.format_map(limits),
        "parameters": [_parameter(parameter, limits) for parameter in parameters],
        "responses": _responses(operation, auth, schemas),
    }
    if operation.takes_events:
        described["requestBody"] = _events(limits, schemas)
    if operation.act and auth == "keys":
        described["security"] = [{name: []} for name in SCHEMES]
    return described


def _parameter(parameter: Parameter, limits: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.location,
        "description": parameter.description.format_map(limits),
        "required": parameter.required,
        "schema": msgspec.json.schema(parameter.kind),
    }


def _events(limits: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """The body of an append. Its Content-Type matters only for NDJSON."""
    event = [_schema(Event, schemas), _schema(WrappedEvent, schemas)]
    batch = {"type": "array", "items": {"anyOf": event}, "maxItems": limits["max_request_events"]}
    lines = {
        "type": "string",
        "format": "ndjson",
        "description": "An event, or a wrapped event, per line; blank lines are skipped.",
    }
    return {
        "description": EVENTS.format_map(limits),
        "required": True,
        "content": {JSON: {"schema": {"anyOf": [*event, batch]}}, NDJSON: {"schema": lines}},
    }


def _responses(operation: Operation, auth: str, schemas: dict[str, Any]) -> dict[str, Any]:
    """The answers by status.

    A status may have both a schema of its own and problems.
    """
    codes = codes_of(operation, auth)
    responses = {}
    for status in sorted({*operation.answers, *codes}):
        answer = operation.answers.get(status)
        if status in codes:
            answer = _with_problem(answer, status, codes[status], is_foreign=operation.is_foreign)
        assert answer is not None
        headers = {name: _header(name, required) for name, required in answer.headers.items()}
        content = {media: {"schema": _either(types, schemas)} for media, types in answer.content.items()}
        responses[str(status)] = {"description": answer.meaning, "headers": headers, "content": content}
    return responses


def codes_of(operation: Operation, auth: str) -> dict[int, list[str]]:
    """The codes of an operation's problems, by status."""
    tables = [CODES_OF_ALL, operation.codes]
    if operation.act:
        tables += [CODES_OF_TENANTS, CODES_OF_MODE[auth]]
    if operation.act == "read":
        tables.append(CODES_OF_READS)
    return {status: [code for table in tables for code in table.get(status, ())] for table in tables for status in table}


def _with_problem(answer: Answer | None, status: int, codes: list[str], *, is_foreign: bool) -> Answer:
    """An answer that may also be a problem.

    Foreign clients may get a refusal instead.
    """
    meaning, headers = PROBLEMS[status]
    meaning = f"{answer.meaning if answer else meaning} Problems: {', '.join(codes)}."
    content = answer.content if answer else {JSON: (Refusal,)} if is_foreign else {}
    return Answer(meaning, content | {PROBLEM: (ProblemDetails,)}, answer.headers if answer else dict.fromkeys(headers, True))


def _header(name: str, required: bool) -> dict[str, Any]:
    meaning, kind = HEADERS[name]
    return {"description": meaning, "required": required, "schema": msgspec.json.schema(kind)}


def _either(types: Sequence[Any], schemas: dict[str, Any]) -> dict[str, Any]:
    choices = [_schema(type, schemas) for type in types]
    return choices[0] if len(choices) == 1 else {"anyOf": choices}


def _schema(type: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """The schema of a type. Types that it refers to are added to `schemas`."""
    [schema], components = msgspec.json.schema_components([type], ref_template="#/components/schemas/{name}")
    schemas.update(components)
    return schema
