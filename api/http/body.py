"""Request bodies: read and unpacked within limits.

A body has a limit, and so have all large bodies together that this process holds at one time.
"""

import ctypes
import zlib

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from api.http.problems import Problem

GZIP_WINDOW = 31  # zlib's number for "gzip header and trailer"
SMALL_BYTES = 64 * 1024  # smaller bodies are not counted, so that large ones never keep them out
HELD_LIMIT_BYTES = 128 * 1024 * 1024
TRIM_BYTES = 16 * 1024 * 1024


class BodyBudget:
    """Bytes of large bodies that this process holds; bounded."""

    def __init__(self, max_request_bytes: int) -> None:
        self.limit_bytes = max(HELD_LIMIT_BYTES, 4 * max_request_bytes)
        self.held_bytes = self._peak_bytes = 0
        self._malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it

    def change(self, by: int) -> None:
        """Add to the bytes held, or subtract. Raises Problem over the limit.

        A large body arrives in many pieces, and small objects of other requests lie between them. So the allocator keeps the
        memory after the last large body is released; malloc_trim returns it to the system.
        """
        after = self.held_bytes + by
        if by > 0 and after > self.limit_bytes:
            detail = "this process holds as many bytes of requests as it may"
            raise Problem(503, "overloaded", detail, limit=self.limit_bytes, value=after)
        self.held_bytes, self._peak_bytes = after, max(after, self._peak_bytes)
        if not after and self._peak_bytes > TRIM_BYTES:
            self._peak_bytes = 0
            if self._malloc_trim:
                self._malloc_trim(0)


class BodyReservation:
    """One request's share of the body budget, until it is answered.

    Its end clears the chunks, so that no traceback of a failed request keeps them alive.
    """

    __slots__ = ("_budget", "_bytes", "chunks")

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self._bytes = 0
        self.chunks: list[bytes] = []

    def __enter__(self) -> "BodyReservation":
        return self

    def __exit__(self, *_: object) -> None:
        self.chunks.clear()
        if self._bytes:
            self._budget.change(-self._bytes)

    def resize(self, size_bytes: int) -> None:
        """Reserve this many bytes in total. Raises Problem over the budget."""
        self._budget.change(size_bytes - self._bytes)
        self._bytes = size_bytes


def headers_by_name(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Headers by name; values of a repeated name are joined by commas."""
    by_name = dict(headers)
    if len(by_name) < len(headers):
        values: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            values.setdefault(name, []).append(value)
        by_name = {name: b",".join(repeated) for name, repeated in values.items()}
    return by_name


async def read_body(receive: Receive, headers: dict[bytes, bytes], limit_bytes: int, reservation: BodyReservation) -> bytes:
    """The body of a request, unpacked.

    Raises Problem as soon as the body is known to be too large or the budget is used up; raises ClientDisconnect.
    """
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limit_bytes:
        raise _body_too_large(limit_bytes, int(declared))
    chunks = reservation.chunks
    size, is_last = 0, False
    while not is_last:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        size, is_last = size + len(chunks[-1]), not message.get("more_body", False)
        if size > limit_bytes:
            raise _body_too_large(limit_bytes, size)
        if size > SMALL_BYTES:
            reservation.resize(size)
    body = b"".join(chunks)
    encoding = headers.get(b"content-encoding", b"").strip().lower()
    if encoding in (b"", b"identity"):
        return body
    body = unpack(body, encoding, limit_bytes)
    reservation.resize(size + len(body))
    return body


def unpack(body: bytes, encoding: bytes, limit_bytes: int) -> bytes:
    """A gzip body, unpacked up to the limit. Raises Problem.

    Any other encoding is refused, and so is a body of several gzip members.
    """
    if encoding != b"gzip":
        name = encoding.decode("latin-1")
        raise Problem(415, "encoding-unsupported", f"Content-Encoding may be gzip or identity, not {name!r}", value=name)
    unpacker = zlib.decompressobj(GZIP_WINDOW)
    try:
        unpacked = unpacker.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise Problem(400, "not-gzip", f"the body is not gzip: {error}") from None
    if len(unpacked) > limit_bytes:
        raise _body_too_large(limit_bytes, len(unpacked))
    if not unpacker.eof:
        raise Problem(400, "not-gzip", "the gzip body is cut short")
    if unpacker.unused_data:
        raise Problem(415, "encoding-unsupported", "the gzip body has more than one member")
    return unpacked


def _body_too_large(limit_bytes: int, value: int) -> Problem:
    detail = f"a request may have {limit_bytes} bytes after unpacking"
    return Problem(413, "request-too-large", detail, limit=limit_bytes, value=value)
