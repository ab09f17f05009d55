"""The cost of foreign formats: parsing a batch and mapping its messages."""

import base64
import gc
import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any
from urllib.parse import urlencode

from api.formats import ForeignRequest, Format
from api.formats.amplitude import AMPLITUDE
from api.formats.cloudevents import CLOUDEVENTS
from api.formats.mixpanel import EVENTS as MIXPANEL
from api.formats.posthog import POSTHOG
from api.formats.segment import SEGMENT
from api.formats.snowplow import BATCH as SNOWPLOW
from bench.report import Figure

MESSAGES = 50  # of a batch
EVENT_US = 20.0
SENT_MS = 1_767_261_600_000
ID = "6f0c2f0e7d0b4a0f9b7f3b1c5a2e4d68"
TIME = "2026-01-01T10:00:00.123456+00:00"


def formats(say: Callable[[str], None], *, quick: bool) -> list[Figure]:
    """Microseconds to parse and map an event of each foreign format."""
    figures = []
    for name, (format, request) in BATCHES.items():
        costs = [_event_us(format, request) for _ in range(20 if quick else 400)]
        say(f"formats: {name} {median(costs):.1f} µs")
        spread = (min(costs), max(costs))
        what = f"an event of {name}'s, parsed and mapped, µs"
        figures.append(Figure(what, median(costs), "at most", EVENT_US, form="{:.1f}", spread=spread))
    return figures


def _event_us(format: Format, request: ForeignRequest) -> float:
    gc.collect()
    began = time.process_time()
    opened = format.open(request)
    for message in opened.messages:
        format.event_of(message, opened)
    return (time.process_time() - began) / MESSAGES * 1e6


# -- batches as the SDKs for Python send them --------------------------------------------------------------------------


def _batch(body: Any, **path: str) -> ForeignRequest:
    """A request with a body."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ForeignRequest(path, b"", {}, raw, (SENT_MS + 1_000) * 1_000)


def _segment() -> ForeignRequest:
    message = {
        "integrations": {},
        "anonymousId": None,
        "properties": {"plan": "pro", "total": 12.5, "items": 3},
        "timestamp": TIME,
        "context": {"library": {"name": "analytics-python", "version": "2.3.4"}},
        "userId": "u1",
        "type": "track",
        "event": "Order Placed",
        "messageId": ID,
    }
    return _batch({"batch": [message] * MESSAGES, "sentAt": TIME, "writeKey": "acme"}, call="batch")


def _posthog() -> ForeignRequest:
    properties = {
        "total": 12.5,
        "plan": "pro",
        "items": 3,
        "$lib": "posthog-python",
        "$lib_version": "7.91.1",
        "$geoip_disable": True,
        "$is_server": True,
        "$os": "Linux",
        "$os_version": "6.1",
        "$python_runtime": "CPython",
        "$python_version": "3.11.2",
    }
    message = {"event": "order placed", "distinct_id": "u1", "timestamp": TIME, "uuid": ID, "properties": properties}
    return _batch({"api_key": "acme", "batch": [message] * MESSAGES, "sent_at": TIME})


def _amplitude() -> ForeignRequest:
    message = {
        "event_type": "Order Placed",
        "user_id": "u1",
        "device_id": "5e1c2f3a-0d8f-4c39-9a64-5a2b7b7c1f10",
        "insert_id": ID,
        "time": SENT_MS,
        "session_id": SENT_MS - 123,
        "event_properties": {"total": 12.5, "plan": "pro", "items": 3},
        "library": "amplitude-python/1.3.0",
    }
    return _batch({"api_key": "acme", "events": [message] * MESSAGES})


def _mixpanel() -> ForeignRequest:
    properties = {
        "token": "acme",
        "distinct_id": "u1",
        "time": SENT_MS / 1_000 + 0.123456,
        "$insert_id": ID,
        "mp_lib": "python",
        "$lib_version": "5.4.1",
        "plan": "pro",
        "total": 12.5,
        "items": 3,
    }
    batch = [{"event": "Order Placed", "properties": properties}] * MESSAGES
    return _batch(urlencode({"data": json.dumps(batch, separators=(",", ":")), "verbose": 1, "ip": 0}).encode())


def _snowplow() -> ForeignRequest:
    def packed(name: str, data: Any) -> str:
        schema = f"iglu:com.snowplowanalytics.snowplow/{name}/jsonschema/1-0-0"
        return base64.urlsafe_b64encode(json.dumps({"schema": schema, "data": data}).encode()).decode()

    order = {"schema": "iglu:com.acme/order_placed/jsonschema/1-0-0", "data": {"plan": "pro", "total": 12.5, "items": 3}}
    event = {
        "e": "ue",
        "ue_px": packed("unstruct_event", order),
        "eid": "6f0c2f0e-7d0b-4a0f-9b7f-3b1c5a2e4d68",
        "dtm": str(SENT_MS),
        "tv": "py-1.1.0",
        "tna": "shop",
        "aid": "acme",
        "p": "pc",
        "uid": "u1",
        "stm": str(SENT_MS + 500),
    }
    return _batch({"schema": "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4", "data": [event] * MESSAGES})


def _cloudevents() -> ForeignRequest:
    event = {
        "specversion": "1.0",
        "id": ID,
        "source": "/shop/orders",
        "type": "order.placed",
        "subject": "u1",
        "time": TIME,
        "datacontenttype": "application/json",
        "data": {"plan": "pro", "total": 12.5, "items": 3},
    }
    return _batch([event] * MESSAGES)


BATCHES: dict[str, tuple[Format, ForeignRequest]] = {
    "Segment": (SEGMENT, _segment()),
    "PostHog": (POSTHOG, _posthog()),
    "Amplitude": (AMPLITUDE, _amplitude()),
    "Mixpanel": (MIXPANEL, _mixpanel()),
    "Snowplow": (SNOWPLOW, _snowplow()),
    "CloudEvents": (CLOUDEVENTS, _cloudevents()),
}
