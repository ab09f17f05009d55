"""The load generator: it posts prepared requests as fast as it can.

It must cost little beside what it measures: no HTTP library, a request is bytes, an answer is a status and a length.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import uvloop

from bench.workload import calls, segment_batch, tenant_names

LIMIT_SECONDS = 120.0
Answered = Callable[["Connection", int, bytes], None]


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection with at most one request on its way."""

    def __init__(self, answered: Answered) -> None:
        self._answered = answered
        self._received = b""
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def post(self, request: bytes) -> None:
        """Send a request."""
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            self._received = b""
            self._answered(self, int(head[9:12]), body)


def request_of(tenant: str, bodies: list[bytes], format: str = "native") -> bytes:
    """The bytes of a POST of one event or several."""
    if format == "segment":
        path, content = "/v1/batch", segment_batch(bodies)
    else:
        path, content = "/api/events", bodies[0] if len(bodies) == 1 else b"[" + b",".join(bodies) + b"]"
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nX-Tenant-ID: {tenant}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        + content
    )


async def connect(port: int, count: int, answered: Answered) -> list[Connection]:
    """Open connections."""
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(lambda: Connection(answered), "127.0.0.1", port))[1] for _ in range(count)]


async def post_all(port: int, requests: list[bytes], connections: int) -> tuple[float, Counter[int], int]:
    """Post all requests; the seconds, the statuses and the accepted events.

    The seconds are from the first request to the last answer.
    """
    waiting: Iterator[bytes] = iter(requests)
    statuses: Counter[int] = Counter()
    finished = asyncio.get_running_loop().create_future()
    accepted = 0

    def answered(connection: Connection, status: int, body: bytes) -> None:
        nonlocal accepted
        statuses[status] += 1
        accepted += body.count(b'"accepted"')
        if (request := next(waiting, None)) is not None:
            connection.post(request)
        elif statuses.total() == len(requests):
            finished.set_result(None)

    opened = await connect(port, min(connections, len(requests)), answered)
    started = time.perf_counter()
    for connection in opened:
        connection.post(next(waiting))
    async with asyncio.timeout(LIMIT_SECONDS):
        await finished
    seconds = time.perf_counter() - started
    for connection in opened:
        connection.transport.abort()
    return seconds, statuses, accepted


def main() -> None:
    """Carry out the plan in the first argument; print the outcome."""
    plan = json.loads(sys.argv[1])
    tenants = tenant_names(plan["tenants"])
    events = calls(tenants, plan["events"], plan["size"], seed=plan["seed"], kind=plan.get("kind", "whole"))
    requests = [request_of(tenant, bodies, plan.get("format", "native")) for tenant, bodies in events]
    seconds, statuses, accepted = uvloop.run(post_all(plan["port"], requests, plan["connections"]))
    if plan.get("format") == "segment":  # Segment's answers hold no receipts
        accepted = statuses[200] * plan["size"]
    print(json.dumps({"seconds": seconds, "statuses": statuses, "accepted": accepted, "events": len(requests) * plan["size"]}))


if __name__ == "__main__":
    main()
