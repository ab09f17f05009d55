"""Events for tests."""

import json
from typing import Any

from streams import Event, parse_event


def body(**members: Any) -> bytes:
    """The JSON of an event; every own member has a default."""
    return json.dumps({"session_id": "S1", "event_type": "page_view", "timestamp": "2026-01-01T10:00:00Z"} | members).encode()


def event(**members: Any) -> Event:
    return parse_event(body(**members))


def events(count: int, *, sessions: int = 3) -> list[Event]:
    """That many events, all different, a second apart."""
    return [
        event(session_id=f"S{i % sessions}", timestamp=f"2026-01-01T{i // 3600 % 24:02}:{i // 60 % 60:02}:{i % 60:02}Z", n=i)
        for i in range(count)
    ]


def numbered(first: int, count: int) -> list[Event]:
    return [event(session_id=f"S{i % 7}", event_id=f"e{i}", n=i) for i in range(first, first + count)]
