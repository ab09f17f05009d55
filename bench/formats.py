"""What foreign formats cost: messages as their SDKs send them, parsed and mapped to events. No process, no server."""

import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from api.formats import FOREIGN, Format, Parts
from bench.report import Figure

Say = Callable[[str], None]

SEGMENT = {
    "type": "track",
    "event": "Order Placed",
    "userId": "user-4711",
    "anonymousId": "5e1c2f3a-0d8f-4c39-9a64-5a2b7b7c1f10",
    "timestamp": "2026-01-01T10:00:00.123456+00:00",
    "properties": {"total": 42.5, "currency": "EUR", "items": 3},
    "context": {"library": {"name": "analytics-python", "version": "2.3.4"}},
    "integrations": {},
}
POSTHOG = {
    "event": "order placed",
    "distinct_id": "user-4711",
    "timestamp": "2026-01-01T10:00:00.123456+00:00",
    "properties": {
        "total": 42.5,
        "currency": "EUR",
        "items": 3,
        "$lib": "posthog-python",
        "$lib_version": "7.91.1",
        "$geoip_disable": True,
        "$is_server": True,
        "$os": "Linux",
        "$os_version": "6.1",
        "$python_runtime": "CPython",
        "$python_version": "3.11.2",
    },
}
AMPLITUDE = {
    "event_type": "Order Placed",
    "user_id": "user-4711",
    "device_id": "5e1c2f3a-0d8f-4c39-9a64-5a2b7b7c1f10",
    "time": 1767261600123,
    "session_id": 1767261600000,
    "event_properties": {"total": 42.5, "currency": "EUR", "items": 3},
    "library": "amplitude-python/1.3.0",
}
# A format's name: the call that its path names, how a body wraps messages, what gives each its id, and a message.
SAMPLES: dict[str, tuple[dict[str, str], str, str, dict[str, Any]]] = {
    "segment": ({"call": "batch"}, "batch", "messageId", SEGMENT),
    "posthog": ({}, "batch", "uuid", POSTHOG),
    "amplitude": ({}, "events", "insert_id", AMPLITUDE),
}
MESSAGES = 100  # of a request


def formats(say: Say, *, quick: bool) -> list[Figure]:
    """Microseconds that each foreign format takes for an event: opened in requests of 100, parsed and mapped."""
    rounds, requests = (3, 20) if quick else (7, 200)
    figures = []
    for name in SAMPLES:
        times = [microseconds_of(name, requests) for _ in range(rounds)]
        say(f"formats: {name} {median(times):.1f} µs an event")
        what = f"format {name}, µs an event"
        figures.append(Figure(what, median(times), "at most", 20, form="{:.1f}", spread=(min(times), max(times))))
    return figures


def microseconds_of(name: str, requests: int) -> float:
    """What one event costs."""
    path, wrapper, id_name, sample = SAMPLES[name]
    messages = [sample | {id_name: f"5e1c2f3a-0d8f-4c39-9a64-{number:012}"} for number in range(MESSAGES)]
    parts = Parts(path, b"", {}, json.dumps({wrapper: messages}).encode(), time.time_ns() // 1_000)
    format = format_of(name, parts)
    began = time.process_time()
    for _ in range(requests):
        envelope = format.open(parts)
        for message in envelope.messages:
            format.event_of(message, envelope)
    return (time.process_time() - began) / requests / MESSAGES * 1_000_000


def format_of(name: str, parts: Parts) -> Format:
    """The format of that name, from the table of paths."""
    for foreign in FOREIGN:
        if all(key in parts.path for key in foreign.parameters) and (format := foreign.choose(parts)).name == name:
            return format
    raise LookupError(name)
