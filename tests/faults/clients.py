"""Clients make events, and send them until each has its receipt.

`ANSWERS` are the statuses that a client may get: any other is a violation.
"""

import asyncio
import base64
import gzip
import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.faults.environment import Violation
from tests.faults.journal import TENANTS, Journal, Members, Receipt, canary, content_of, identity

ANSWERS = {200, 202, 207, 409, 422, 429, 503}
STATUS_OF_ONE = {"accepted": 202, "duplicate": 200, "conflict": 409, "rejected": 422, "limited": 429}
REPLY_SECONDS = 4.0
WAIT_SECONDS = 30.0
REPEATED = 0.2
BUSY_REQUESTS, SLOWER = 20, 8
GARBAGE = (b'{"session_id": "S1"}', b'{"session_id": 7, "event_type": "x", "timestamp": "2026-01-01T10:00:00Z"}', b"17", b'"x"')


class EventMaker:
    """Makes the events of a client, some of them duplicates or conflicts."""

    def __init__(self, rng: random.Random, journal: Journal, client: int, round_number: int) -> None:
        self.rng, self.journal, self.client, self.round = rng, journal, client, round_number
        self.made = 0

    def make(self, tenant: str) -> list[Members]:
        """One event, or two different events that share a hash."""
        if self.journal.sent[tenant] and self.rng.random() < REPEATED:
            again = self.rng.choice(self.journal.sent[tenant])
            return [again | {"n": "other"} if "event_id" in again and self.rng.random() < 0.1 else again]
        self.made += 1
        kind = self.rng.random()
        timestamp = self._timestamp()
        properties = {"canary": canary(tenant), "n": self.made, "deep": {"list": [1, None, "ü☃"]}}
        if self.made % 3 == 0:
            properties |= {"user_id": ("null", f"u{self.made % 7}")[self.made % 2], "anonymous_id": self.made % 11}
        if kind < 0.15:
            suffix = f"{self.made % 3}-{self.client}x"
            first = {"session_id": "S1", "event_type": f"2{suffix}", "timestamp": timestamp, **properties}
            second = {"session_id": "S12", "event_type": suffix, "timestamp": timestamp, **properties}
            return [first, second] if self.rng.random() < 0.5 else [second, first]
        event = {
            "session_id": f"{'2' if tenant == 'acme' else ''}S{self.rng.randrange(5)}",
            "event_type": f"type{self.made % 3}-{self.client}",
            "timestamp": timestamp,
            **properties,
        }
        if kind < 0.35:
            event["event_id"] = f"{self.round}-{self.client}-{self.made}"
            if kind < 0.18:  # one identity, two contents: one of the two is answered `conflict`
                return [event, event | {"n": -self.made}]
        return [event]

    def _timestamp(self) -> str:
        """A time that jumps about, but never gives two events one identity."""
        step = self.made // 3 + self.round * 1_000
        moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(milliseconds=step * 7919 * 1001 % 86_400_000)
        text = moment.isoformat(timespec="milliseconds" if step % 2 else "microseconds")
        return text if step % 3 else text.replace("+00:00", "Z")


class Client:
    """A client that sends until it is stopped and all has a receipt."""

    def __init__(self, port: int, journal: Journal, rng: random.Random, maker: EventMaker, *, pause_seconds: float) -> None:
        self.port, self.journal, self.rng, self.maker = port, journal, rng, maker
        self.pause_seconds = pause_seconds
        self.allowed = ANSWERS
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Send events, and read the status and the rows of some."""
        try:
            sent = 0
            while not stop.is_set():
                tenant = self.rng.choice(TENANTS)
                receipts = await self.post(tenant)
                if receipts and self.rng.random() < 0.1:
                    await self.look(receipts[-1])
                sent += 1
                slower = 1 if sent < BUSY_REQUESTS else SLOWER  # some faults take long, and each check reads all that was sent
                await asyncio.sleep(self.rng.uniform(0, 2 * self.pause_seconds) * slower)
        finally:
            self.hang_up()

    async def post(self, tenant: str) -> list[Receipt]:
        """Send one request of a random form."""
        if self.rng.random() < 0.6:
            events = self.maker.make(tenant)[:1]
            return await self.deliver(tenant, events, self._one(events[0]), [], single=True)
        events = [event for _ in range(self.rng.randint(1, 12)) for event in self.maker.make(tenant)]
        garbage = [self.rng.randrange(len(events) + 1)] if self.rng.random() < 0.1 else []
        return await self.deliver(tenant, events, *self._batch(events, garbage))

    def _one(self, event: Members) -> tuple[bytes, str]:
        """An event as JSON, or as base64 of it with or without padding."""
        text = json.dumps(event).encode()
        if self.rng.random() < 0.4:
            encode = self.rng.choice((base64.b64encode, base64.urlsafe_b64encode))
            payload = encode(text).decode()
            text = json.dumps({"payload": payload if self.rng.random() < 0.5 else payload.rstrip("=")}).encode()
        return text, ""

    def _batch(self, events: Sequence[Members], garbage: list[int]) -> tuple[tuple[bytes, str], list[int]]:
        texts = [self._one(event)[0] for event in events]
        for place in garbage:
            texts.insert(place, self.rng.choice(GARBAGE))
        headers, body = "", b"[" + b",".join(texts) + b"]"
        if self.rng.random() < 0.5:
            headers, body = "content-type: application/x-ndjson\r\n", b"\n".join(texts)
        if self.rng.random() < 0.3:
            headers, body = headers + "content-encoding: gzip\r\n", gzip.compress(body, 1)
        return (body, headers), garbage

    async def deliver(
        self, tenant: str, events: Sequence[Members], body: tuple[bytes, str], garbage: list[int], *, single: bool = False
    ) -> list[Receipt]:
        """Send a request until it is answered and no event of it is limited.

        Returns its receipts, checked and written down.
        """
        content, headers = body
        head = f"POST /api/events HTTP/1.1\r\nhost: x\r\nx-tenant-id: {tenant}\r\ncontent-length: {len(content)}\r\n{headers}\r\n"
        self.journal.attempt(tenant, events)
        weight = (tenant, len(events) + len(garbage))
        first: dict[int, Any] = {}  # the first receipt of each place that is not `limited`
        deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
        while True:
            status, answer = await self._until_answered(head.encode() + content, weight)
            members = [answer] if single else answer["receipts"]
            self.journal.answers.update((tenant, member["status"]) for member in members)
            first = {place: member for place, member in enumerate(members) if member["status"] != "limited"} | first
            if len(first) == len(members):
                break
            if asyncio.get_running_loop().time() > deadline:
                raise Violation(f"{tenant}: still limited after {WAIT_SECONDS} s: {answer}")
            await asyncio.sleep(self.rng.uniform(0.05, 0.2))
        members = [first[place] for place in range(len(members))]
        for place in garbage:
            if members.pop(place)["status"] != "rejected":
                raise Violation(f"{tenant}: garbage was not rejected: {answer}")
        if single and STATUS_OF_ONE[answer["status"]] != status:
            raise Violation(f"{tenant}: HTTP status {status} for the receipt {answer}")
        receipts = [
            Receipt(tenant, content_of(event), member["status"], member["position"])
            for event, member in zip(events, members, strict=True)
        ]
        for event, member in zip(events, members, strict=True):
            if member["status"] == "rejected" or member["event_hash"] != identity(tenant, event)[0]:
                raise Violation(f"{tenant}: the receipt {member} for {event}")
        self.journal.receive(receipts, events)
        return receipts

    async def look(self, receipt: Receipt) -> None:
        """Ask for the status of an event, and read it once the tables have it."""
        head = f"HTTP/1.1\r\nhost: x\r\nx-tenant-id: {receipt.tenant}\r\n\r\n"
        _, status = await self._until_answered(f"GET /api/receipts/{receipt.position} {head}".encode())
        if status["status"] not in ("queued", "projected", "late_duplicate", "quarantined", "dropped"):
            raise Violation(f"{receipt.tenant}: position {receipt.position} was given out, and is {status}")
        _, page = await self._until_answered(f"GET /api/events?limit=20&after={receipt.position} {head}".encode())
        for row in page["events"]:
            if row["properties"]["canary"] != canary(receipt.tenant):
                raise Violation(f"{receipt.tenant} sees the row {row}")

    async def _until_answered(self, request: bytes, weight: tuple[str, int] = ("", 0)) -> tuple[int, Any]:
        """Send the same bytes until an answer is final.

        `weight` is the tenant of the events in it, and their count.
        """
        tenant, events = weight
        deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
        while True:
            if request.startswith(b"POST") and self.rng.random() < 0.05:
                self.journal.sends[tenant] += events
                await self._cut(request)
            self.journal.sends[tenant] += events
            try:
                async with asyncio.timeout(REPLY_SECONDS):
                    status, body = await self._exchange(request)
                self.journal.statuses[status] += 1
                if status not in self.allowed:
                    raise Violation(f"status {status}: {body[:500]!r} for {request[:300]!r}")
                if status not in (500, 503):
                    return status, json.loads(body)
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                self.hang_up()
            if asyncio.get_running_loop().time() > deadline:
                raise Violation(f"no final answer within {WAIT_SECONDS} s to {request[:300]!r}")
            await asyncio.sleep(self.rng.uniform(0.02, 0.06))

    async def _exchange(self, request: bytes) -> tuple[int, bytes]:
        reader, writer = await self._connected()
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0] or 0)
        return int(head[9:12]), await reader.readexactly(length)

    async def _cut(self, request: bytes) -> None:
        """Send all or a part, and hang up without reading the answer."""
        try:
            _, writer = await self._connected()
            writer.write(request if self.rng.random() < 0.7 else request[: len(request) // 2])
            await asyncio.sleep(self.rng.uniform(0, 0.005))
        except OSError:
            pass
        self.hang_up()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self.port)
        return self._streams

    def hang_up(self) -> None:
        """Cut the connection."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None
