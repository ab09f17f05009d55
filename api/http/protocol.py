"""uvicorn's HTTP protocol, with the limits that it lacks.

The limits are a deadline for receiving a request, a size limit for its headers, and a number of connections per address. Without
them, an idle or slow client keeps its connection for as long as it likes, and a few thousand such connections lock out all other
clients.
"""

import asyncio
from collections import Counter
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from api.http.cors import CorsHeaders
from api.http.problems import HEADERS, problem_bytes
from api.http.request_ids import HEADER, request_id_of
from streams.runtime import Settings

HEADER_LIMIT_BYTES = 32 * 1024
LINGER_SECONDS = 1.0  # how long the rest of a refused request is read
LINGER_BYTES = 1024 * 1024
HEAD, LENGTH, END = b"HTTP/1.1 ", b"\r\ncontent-length: ", b"\r\n\r\n"  # parts of an answer's head
CHUNK_OVERHEAD = 8  # the most bytes on the wire for each byte of body, when each chunk holds one byte


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
    """A transport that writes an answer's head and body together.

    A head that has a Content-Length is kept until the body follows. Both then go out in one write, and usually in one packet. A
    second write costs as much as parsing an event, and some clients mistake the end of a packet for the end of the answer.
    """

    __slots__ = ("_head", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write bytes, or keep them if they are the head of an answer."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(HEAD) and data.endswith(END) and LENGTH in data:
            self._head = data
            return
        self._transport.write(data)

    def flush(self) -> None:
        """Write the kept head when no body follows."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """Write the kept head, then close the connection."""
        self.flush()
        self._transport.close()


class BoundedProtocol(HttpToolsProtocol):
    """A client's connection, with limits.

    The deadline starts when the connection opens, and again at the first byte of each request. It is cancelled when the request
    is complete.
    """

    request_timeout_seconds: ClassVar[float]
    max_connections_per_address: ClassVar[int]
    proxies: ClassVar[list[IPv4Network | IPv6Network]]
    connections_of: ClassVar[Counter[str]]
    cors: ClassVar[CorsHeaders]
    _requests = 0
    _refused = _in_body = False

    def connection_made(self, transport: Any) -> None:
        """Count the connection, and start its deadline."""
        super().connection_made(transport)
        self.transport: Any = SingleWriteTransport(transport)
        self.headers = []
        self._deadline: asyncio.TimerHandle | None = None
        self._header_bytes = self._raw_bytes = self._body_bytes = 0
        self._address = self.client[0] if self.client else ""
        self.connections_of[self._address] += 1
        if self.connections_of[self._address] > self.max_connections_per_address and not self._is_proxy():
            limit, value = self.max_connections_per_address, self.connections_of[self._address]
            self._refuse(503, "too-many-connections", "this address has too many connections", limit=limit, value=value)
        else:
            self._start_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop counting the connection."""
        self._cancel_deadline()
        self.connections_of[self._address] -= 1
        if not self.connections_of[self._address]:
            del self.connections_of[self._address]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Receive bytes of a request."""
        if self._refused:
            self._raw_bytes += len(data)
            if self._raw_bytes > LINGER_BYTES:
                self.transport.close()
        if self._refused or self.transport.is_closing():
            return
        requests_before = self._requests
        super().data_received(data)
        if self._deadline is not None and self._requests == requests_before:  # all bytes belong to one incomplete request
            self._raw_bytes += len(data)
            if self._raw_bytes > HEADER_LIMIT_BYTES + CHUNK_OVERHEAD * self._body_bytes:
                self._too_large(self._raw_bytes - self._body_bytes)

    def on_message_begin(self) -> None:
        """Begin a request, at its first byte."""
        super().on_message_begin()
        self._header_bytes = self._raw_bytes = self._body_bytes = 0
        self._in_body = False
        self._requests += 1
        self._start_deadline()

    def on_url(self, url: bytes) -> None:
        """Receive a part of the request's target."""
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Receive a header.

        A header after a chunked body is a trailer. It is ignored, because a trailer must not say who sends a request
        (RFC 9110, 6.5.1).
        """
        if not self._in_body:
            super().on_header(name, value)
        self._count(len(name) + len(value))

    def on_headers_complete(self) -> None:
        """End the headers. A request that is already refused stops here."""
        self._in_body = True
        upgrade = self.parser.should_upgrade()  # if so, the parser drops everything after the headers
        if upgrade and self._has_body():
            self._refuse(400, "upgrade-unsupported", "a request with a body cannot ask for another protocol")
        if self._refused:
            return
        super().on_headers_complete()
        if upgrade:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Receive a part of the body."""
        self._body_bytes += len(body)
        if self.cycle is not None and not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request, and with it the client's deadline."""
        self._cancel_deadline()
        if self.cycle is not None and not self._refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """End the answer, and write it now if it has no body."""
        self.transport.flush()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that the parser cannot read."""
        self._refuse(400, "not-http", msg)

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > HEADER_LIMIT_BYTES:
            self._too_large(self._header_bytes)

    def _too_large(self, value: int) -> None:
        self._refuse(
            431, "headers-too-large", "the headers and target of the request are too large", limit=HEADER_LIMIT_BYTES, value=value
        )

    def shutdown(self) -> None:
        """Stop, without waiting for a request that is incomplete."""
        if self._deadline is not None and self._requests:
            self.transport.close()
        else:
            super().shutdown()

    def _is_proxy(self) -> bool:
        """Whether the connection comes from a trusted proxy.

        Many clients share a proxy. Only checked when an address has too many connections.
        """
        return bool(self._address) and any(ip_address(self._address) in network for network in self.proxies)

    def _start_deadline(self) -> None:
        self._cancel_deadline()
        self._deadline = self.loop.call_later(self.request_timeout_seconds, self._expire)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expire(self) -> None:
        self._refuse(408, "request-too-slow", "the request took too long to arrive", limit=self.request_timeout_seconds)

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: a client that asks for another protocol gets HTTP/1.1."""

    def _has_body(self) -> bool:
        """Whether the request announces a body."""
        return any(name in (b"content-length", b"transfer-encoding") and value != b"0" for name, value in self.headers)

    def _is_answered_early(self) -> bool:
        """Whether the answer began before the body was complete.

        Such a request was refused because of its headers alone.
        """
        return self.cycle is not None and self.cycle.more_body and self.cycle.response_started

    def _is_unanswered(self) -> bool:
        """Whether a complete request still waits for its answer."""
        return self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete

    def _refuse(self, status: int, code: str, detail: str, **extra: Any) -> None:
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        if self._is_unanswered():  # the earlier request gets its answer first, then the connection ends
            self.cycle.keep_alive = False
            return
        if self._is_answered_early():  # the client would mistake a second answer for the answer to its next request
            self.transport.close()
            return
        body = problem_bytes(status, code, detail, **extra)
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(body)),
            *((name.encode(), value.encode()) for name, value in HEADERS.get(status, {}).items()),
            (b"connection", b"close"),
            *self.cors.for_request(self.headers),
            (HEADER, request_id_of(self.headers).encode()),
        ]
        self.transport.write(STATUS_LINE[status] + b"".join(b"%b: %b\r\n" % header for header in headers) + b"\r\n" + body)
        if status in (400, 431):  # the client is still sending; closing now would reset the connection before it reads
            self.transport.write_eof()
            self._cancel_deadline()
            self._deadline = self.loop.call_later(LINGER_SECONDS, self.transport.close)
        else:
            self.transport.close()
