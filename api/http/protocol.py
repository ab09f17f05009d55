"""uvicorn's HTTP protocol with what it lacks: a deadline to receive a request, a cap on headers, a cap on connections
of one address. Without them an idle or slow client holds a connection for ever, and a few thousand lock out the rest.
"""

import asyncio
from collections import Counter
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from api.http.cors import CorsHeaders
from api.http.problems import HEADERS, problem_bytes
from api.http.request_ids import HEADER, request_id_of
from streams import Settings

HEADER_LIMIT_BYTES = 32 * 1024
LINGER_SECONDS = 1.0  # for the rest of what is refused
LINGER_BYTES = 1024 * 1024
HEAD, LENGTH, END = b"HTTP/1.1 ", b"\r\ncontent-length: ", b"\r\n\r\n"  # of the head of an answer
CHUNK_OVERHEAD = 8  # bytes on the wire a byte of body, at most: chunks of one byte


def protocol_of(settings: Settings) -> type[asyncio.Protocol]:
    """The protocol class for these settings."""

    class Protocol(BoundedProtocol):
        request_timeout_seconds = settings.request_timeout_seconds
        max_connections_per_address = settings.max_connections_per_address
        proxies = settings.proxies
        connections_of: ClassVar[Counter[str]] = Counter()
        cors = CorsHeaders(settings.origins)

    return Protocol


class SingleWriteTransport:
    """A transport that keeps an answer's head, when it says how long the answer is, until what follows: one write, and mostly one
    packet. Clients that take the end of a packet for that of an answer are there, and the second write costs as much as parsing
    an event."""

    __slots__ = ("_head", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write bytes, or keep them if they are a head."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(HEAD) and data.endswith(END) and LENGTH in data:
            self._head = data
            return
        self._transport.write(data)

    def flush(self) -> None:
        """Write what is kept: nothing follows."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """Write what is kept, and close."""
        self.flush()
        self._transport.close()


class BoundedProtocol(HttpToolsProtocol):
    """One connection: armed on connect and on a request's first byte, disarmed when the request is complete."""

    request_timeout_seconds: ClassVar[float]
    max_connections_per_address: ClassVar[int]
    proxies: ClassVar[list[IPv4Network | IPv6Network]]
    connections_of: ClassVar[Counter[str]]
    cors: ClassVar[CorsHeaders]
    _requests = 0
    _refused = _in_body = False

    def connection_made(self, transport: Any) -> None:
        """Count the connection, start its deadline."""
        super().connection_made(transport)
        self.transport: Any = SingleWriteTransport(transport)
        self.headers = []
        self._deadline: asyncio.TimerHandle | None = None
        self._header_bytes = self._raw_bytes = self._body_bytes = 0
        self._address = self.client[0] if self.client else ""
        self.connections_of[self._address] += 1
        if self.connections_of[self._address] > self.max_connections_per_address and not self._is_proxy():
            limit, value = self.max_connections_per_address, self.connections_of[self._address]
            self._refuse(503, "too-many-connections", "connections of one address", limit=limit, value=value)
        else:
            self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Uncount the connection."""
        self._disarm()
        self.connections_of[self._address] -= 1
        if not self.connections_of[self._address]:
            del self.connections_of[self._address]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request."""
        if self._refused:
            self._raw_bytes += len(data)
            if self._raw_bytes > LINGER_BYTES:
                self.transport.close()
        if self._refused or self.transport.is_closing():
            return
        before = self._requests
        super().data_received(data)
        if self._deadline is not None and self._requests == before:  # all of it belongs to one request, not complete yet
            self._raw_bytes += len(data)
            if self._raw_bytes > HEADER_LIMIT_BYTES + CHUNK_OVERHEAD * self._body_bytes:
                self._too_large(self._raw_bytes - self._body_bytes)

    def on_message_begin(self) -> None:
        """A request's first byte."""
        super().on_message_begin()
        self._header_bytes = self._raw_bytes = self._body_bytes = 0
        self._in_body = False
        self._requests += 1
        self._arm()

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; behind a chunked body a trailer, which says nothing about who sends what (RFC 9110, 6.5.1)."""
        if not self._in_body:
            super().on_header(name, value)
        self._count(len(name) + len(value))

    def on_headers_complete(self) -> None:
        """All headers; a request that was refused meanwhile goes no further."""
        self._in_body = True
        upgrade = self.parser.should_upgrade()  # the parser takes no body then, and drops what follows
        if upgrade and self._has_body():
            self._refuse(400, "upgrade-unsupported", "a request with a body cannot ask for another protocol")
        if self._refused:
            return
        super().on_headers_complete()
        if upgrade:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._body_bytes += len(body)
        if self.cycle is not None and not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is here; what remains is ours to do."""
        self._disarm()
        if self.cycle is not None and not self._refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is written; to HEAD, it is a head alone."""
        self.transport.flush()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """What the parser refuses."""
        self._refuse(400, "not-http", msg)

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > HEADER_LIMIT_BYTES:
            self._too_large(self._header_bytes)

    def _too_large(self, value: int) -> None:
        self._refuse(431, "headers-too-large", "headers and target of a request", limit=HEADER_LIMIT_BYTES, value=value)

    def shutdown(self) -> None:
        """The server ends: a request that is not here yet is not waited for."""
        if self._deadline is not None and self._requests:
            self.transport.close()
        else:
            super().shutdown()

    def _is_proxy(self) -> bool:
        """Whether many clients share this address. Asked only of one that has more connections than a client may."""
        return bool(self._address) and any(ip_address(self._address) in network for network in self.proxies)

    def _arm(self) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(self.request_timeout_seconds, self._expire)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expire(self) -> None:
        self._refuse(408, "request-too-slow", "seconds to receive a request", limit=self.request_timeout_seconds)

    def _unsupported_upgrade_warning(self) -> None:
        """Asking for another protocol is nothing to warn of: the answer comes in this one."""

    def _has_body(self) -> bool:
        """Whether the request announces a body."""
        return any(name in (b"content-length", b"transfer-encoding") and value != b"0" for name, value in self.headers)

    def _half_answered(self) -> bool:
        """Whether the answer has begun to a request whose body still comes: it was refused by its headers alone."""
        return self.cycle is not None and self.cycle.more_body and self.cycle.response_started

    def _unanswered(self) -> bool:
        """Whether a request that came whole still waits for its answer."""
        return self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete

    def _refuse(self, status: int, code: str, detail: str, **extra: Any) -> None:
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        if self._unanswered():  # answers go out in order: the earlier request gets its own, then the connection ends
            self.cycle.keep_alive = False
            return
        if self._half_answered():  # a second answer would be taken for that of the client's next request
            self.transport.close()
            return
        body = problem_bytes(status, code, detail, **extra)
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(body)),
            *((name.encode(), value.encode()) for name, value in HEADERS.get(status, {}).items()),
            (b"connection", b"close"),
            *self.cors.of(self.headers),
            (HEADER, request_id_of(self.headers).encode()),
        ]
        self.transport.write(STATUS_LINE[status] + b"".join(b"%b: %b\r\n" % header for header in headers) + b"\r\n" + body)
        if status in (400, 431):  # refused while sending: closed at once, what still comes would reset the answer away
            self.transport.write_eof()
            self._disarm()
            self._deadline = self.loop.call_later(LINGER_SECONDS, self.transport.close)
        else:
            self.transport.close()
