"""The events of the figures, the same for the same seed.

A tenant has about a hundred sessions at a time, a session about twelve events; five event types, two or three
properties; times a hundredth of a second apart, in order but for a jitter of two seconds. An event has about 180 bytes.
"""

import hashlib
import json
import random
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Literal

Kind = Literal["whole", "short", "named"]
TYPES = ("page_view", "click", "search", "add_to_cart", "purchase")
REFERRERS = ("search", "newsletter", "direct", "partner")
SESSION_EVENTS = 12
ACTIVE_SESSIONS = 100
STEP_US = 10_000
JITTER_US = 2_000_000
OWN = ("session_id", "event_type", "timestamp")
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def tenant_names(count: int, *, prefix: str = "tenant") -> list[str]:
    """The names of `count` tenants."""
    return [f"{prefix}-{number:05}" for number in range(count)]


def bodies(tenant: str, count: int, *, seed: str, after: int = 0, kind: Kind = "whole") -> Iterator[bytes]:
    """A tenant's events as a client sends them, from number `after` on.

    `short` events are stored in about 150 bytes; `named` events, with a random event_id, in about 180.
    """
    chance = random.Random(f"{seed}/{tenant}")
    active = max(1, min(ACTIVE_SESSIONS, count // SESSION_EVENTS))
    sessions = [f"{chance.getrandbits(128):032x}" for _ in range(active)]
    start = BEGIN + timedelta(microseconds=after * STEP_US)
    for i in range(count):
        slot = int(chance.random() * active)
        moment = start + timedelta(microseconds=i * STEP_US + int(chance.random() * JITTER_US))
        yield _body(chance, sessions[slot], moment.isoformat(timespec="microseconds")[:26], kind)
        if chance.random() * SESSION_EVENTS < 1:
            sessions[slot] = f"{chance.getrandbits(128):032x}"


def _body(chance: random.Random, session_id: str, moment: str, kind: Kind) -> bytes:
    event_type, number = TYPES[int(chance.random() * 5)], int(chance.random() * 10_000)
    own = f'"session_id":"{session_id}","timestamp":"{moment}Z"'
    if kind == "short":
        return f'{{"event_type":"{event_type}","path":"/p/{number}",{own}}}'.encode()
    if kind == "named":
        return f'{{"event_id":"{chance.getrandbits(128):032x}","event_type":"{event_type}",{own}}}'.encode()
    referrer = f'"referrer":"{REFERRERS[number & 3]}",' if number & 4 else ""
    return f'{{"duration_ms":{number},"event_type":"{event_type}","path":"/products/{number}",{referrer}{own}}}'.encode()


def calls(
    tenants: Sequence[str], events: int, size: int, *, seed: str, after: int = 0, kind: Kind = "whole"
) -> Iterator[tuple[str, list[bytes]]]:
    """Events in calls of `size` events of a tenant, the tenants in turn."""
    count = events // size
    each = -(-count // len(tenants)) * size
    offset = zlib.crc32(seed.encode())
    streams: dict[str, Iterator[bytes]] = {}
    for i in range(count):
        tenant = tenants[(offset + i) % len(tenants)]
        if tenant not in streams:
            streams[tenant] = bodies(tenant, each, seed=seed, after=after, kind=kind)
        yield tenant, list(islice(streams[tenant], size))


def segment_batch(events: Sequence[bytes]) -> bytes:
    """Native events as a batch of Segment's Python SDK."""
    return json.dumps({"batch": [_segment_message(event) for event in events], "sentAt": "2026-01-01T12:00:00.000Z"}).encode()


def _segment_message(raw: bytes) -> dict[str, Any]:
    event, number = json.loads(raw), hashlib.md5(raw).hexdigest()
    return {
        "integrations": {},
        "anonymousId": None,
        "properties": {name: value for name, value in event.items() if name not in OWN},
        "timestamp": event["timestamp"].replace("Z", "+00:00"),
        "context": {"library": {"name": "analytics-python", "version": "2.4.0"}},
        "userId": event["session_id"],
        "type": "track",
        "event": event["event_type"],
        "messageId": f"{number[:8]}-{number[8:12]}-{number[12:16]}-{number[16:20]}-{number[20:]}",
    }
