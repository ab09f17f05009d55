"""The reference of the API: a process that only sends packed script calls.

They are the calls that an API sends for the same events. It also fills the logs of other figures.
"""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import hiredis
import uvloop
from redis.exceptions import ResponseError

from bench.workload import calls, tenant_names
from streams import Connection, Log, parse_event
from streams.connection import script
from streams.errors import LogRefused

LIMIT_SECONDS = 300.0


class Recorder(Connection):
    """A connection that keeps its commands and answers with errors."""

    def __init__(self) -> None:
        super().__init__("unix:///nowhere")
        self.packed: list[bytes] = []

    async def script_pipeline(
        self, name: str, calls: Sequence[tuple[Sequence[str], Sequence[Any]]], *, budget_seconds: float | None = None
    ) -> list[Any]:
        """Keep the calls of a script."""
        self.packed += [hiredis.pack_command(tuple(script(name).command(keys, arguments))) for keys, arguments in calls]
        return [ResponseError("kept, not sent") for _ in calls]


async def prepare(events: Iterator[tuple[str, list[bytes]]], dedup_window_seconds: float) -> list[bytes]:
    """The packed script calls that appending these events would send."""
    recorder = Recorder()
    async with Log(recorder, dedup_window_seconds=dedup_window_seconds) as log:
        for tenant, bodies in events:
            with contextlib.suppress(LogRefused):
                await log.append(tenant, [parse_event(body) for body in bodies])
    return recorder.packed


class AppendClient(asyncio.Protocol):
    """One connection with at most one call on its way."""

    def __init__(self, waiting: Iterator[bytes], finished: asyncio.Future[None]) -> None:
        self._waiting, self._finished, self._reader = waiting, finished, hiredis.Reader()
        self.accepted = 0
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def send(self) -> None:
        """Send the next call, if there is one."""
        if (call := next(self._waiting, None)) is not None:
            self.transport.write(call)
        else:
            self._finished.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            if isinstance(reply, Exception):
                self._finished.set_exception(reply)
                return
            self.accepted += reply[0:-1:2].count(1)
            self.send()


async def send_all(socket: str, packed: list[bytes], connections: int) -> tuple[float, int]:
    """Send all calls; the seconds until the last reply, the accepted events."""
    loop = asyncio.get_running_loop()
    waiting = iter(packed)
    async with Connection(f"unix://{socket}") as connection:
        await connection.call("SCRIPT", "LOAD", script("append").text)
    opened: list[AppendClient] = []
    finished: list[asyncio.Future[None]] = []
    for _ in range(min(connections, len(packed))):
        finished.append(loop.create_future())
        _, client = await loop.create_unix_connection(lambda: AppendClient(waiting, finished[-1]), socket)
        opened.append(client)
    started = time.perf_counter()
    for client in opened:
        client.send()
    async with asyncio.timeout(LIMIT_SECONDS):
        await asyncio.gather(*finished)
    seconds = time.perf_counter() - started
    for client in opened:
        client.transport.abort()
    return seconds, sum(client.accepted for client in opened)


async def act(plan: dict[str, Any]) -> dict[str, Any]:
    """Carry out a plan; its seconds and counts."""
    tenants = tenant_names(plan["tenants"], prefix=plan.get("prefix", "tenant"))
    events = calls(tenants, plan["events"], plan["size"], seed=plan["seed"], after=plan["after"], kind=plan["kind"])
    packed = await prepare(events, plan["dedup_window_seconds"])
    seconds, accepted = await send_all(plan["socket"], packed, plan["connections"])
    return {"seconds": seconds, "accepted": accepted, "events": len(packed) * plan["size"]}


if __name__ == "__main__":
    print(json.dumps(uvloop.run(act(json.loads(sys.argv[1])))))
