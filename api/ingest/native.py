"""The native ingest endpoint, POST /api/events."""

import msgspec
from starlette.datastructures import State
from starlette.types import Receive, Scope, Send

from api.http import BodyReservation, headers_by_name, read_body
from api.ingest.parsing import parse_request
from api.ingest.receipts import answer_of
from streams import Event
from streams.runtime import Settings, failpoint

_encode = msgspec.json.Encoder().encode


class PostEvents:
    """Takes one event, a JSON array of events, or a JSON event per line.

    It is plain ASGI: Starlette's Request and Response take as much time as parsing and appending an event.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Errors rise to the table in api.http.problems."""
        state: State = scope["app"].state
        settings: Settings = state.settings
        tenant = await state.admission.admit(scope["headers"], "append")
        with BodyReservation(state.body_budget) as reservation:
            headers = headers_by_name(scope["headers"])
            body = await read_body(receive, headers, settings.max_request_bytes, reservation)
            parsed, is_batch = await parse_request(body, headers.get(b"content-type", b""), settings)
            failpoint("after_parse_before_append")
            limits = state.registry.limits_of(tenant)
            events = [event for event in parsed if isinstance(event, Event)]
            rejected = len(parsed) - len(events)
            receipts = await state.log.append(tenant, events, limits=limits, rejected=rejected) if parsed else []
            failpoint("after_append_before_reply")
            status, content, limit_headers = answer_of(parsed, receipts, limits, is_batch=is_batch)
            answer = _encode(content)
            length = (b"content-length", b"%d" % len(answer))
            answer_headers = [(b"content-type", b"application/json"), length, *limit_headers]
            await send({"type": "http.response.start", "status": status, "headers": answer_headers})
            await send({"type": "http.response.body", "body": answer})
