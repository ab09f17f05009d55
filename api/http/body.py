"""Bodies: read and unpacked up to their limit, and no more of them at a time than this process can hold."""

import ctypes
import zlib

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from api.http.problems import Problem

GZIP_WINDOW = 31  # zlib's number for "gzip header and trailer"
SMALL_BYTES = 64 * 1024  # bodies up to here are not counted: whoever fills the process with large ones keeps no small one out
HELD_LIMIT_BYTES = 128 * 1024 * 1024
TRIM_BYTES = 16 * 1024 * 1024


class BodyBudget:
    """How many bytes of large bodies this process holds, of requests that were not answered yet; bounded."""

    def __init__(self, max_request_bytes: int) -> None:
        self.limit_bytes = max(HELD_LIMIT_BYTES, 4 * max_request_bytes)
        self.held_bytes = self._peak_bytes = 0
        self._give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc, which needs to be told

    def change(self, by: int) -> None:
        """Hold so many bytes more, or less. Raises Problem when these are too many.

        Large bodies come in many pieces, between which the small things of other requests lie: when the last of many is gone
        the memory is still the process's, and is given back here.
        """
        after = self.held_bytes + by
        if by > 0 and after > self.limit_bytes:
            detail = "this process holds as many bytes of requests as it may"
            raise Problem(503, "overloaded", detail, limit=self.limit_bytes, value=after)
        self.held_bytes, self._peak_bytes = after, max(after, self._peak_bytes)
        if not after and self._peak_bytes > TRIM_BYTES:
            self._peak_bytes = 0
            if self._give_back:
                self._give_back(0)


class Held:
    """What one request holds of the body_budget, until it is answered: however it ends, nothing of it lives on in a traceback."""

    __slots__ = ("_bytes", "_intake", "chunks")

    def __init__(self, body_budget: BodyBudget) -> None:
        self._intake = body_budget
        self._bytes = 0
        self.chunks: list[bytes] = []

    def __enter__(self) -> "Held":
        return self

    def __exit__(self, *_: object) -> None:
        self.chunks.clear()
        if self._bytes:
            self._intake.change(-self._bytes)

    def hold(self, size: int) -> None:
        """Hold so many bytes in all. Raises Problem when the process holds too many."""
        self._intake.change(size - self._bytes)
        self._bytes = size


def joined(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Headers by name; several of one name as HTTP says, with a comma between."""
    found = dict(headers)
    if len(found) < len(headers):
        values: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            values.setdefault(name, []).append(value)
        found = {name: b",".join(several) for name, several in values.items()}
    return found


async def read_body(receive: Receive, headers: dict[bytes, bytes], limit_bytes: int, held: Held) -> bytes:
    """The body, unpacked; refused as soon as it is known to be too large, or one too many. Raises ClientDisconnect, too."""
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limit_bytes:
        raise _body_too_large(limit_bytes, int(declared))
    chunks = held.chunks
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        size, more = size + len(chunks[-1]), message.get("more_body", False)
        if size > limit_bytes:
            raise _body_too_large(limit_bytes, size)
        if size > SMALL_BYTES:
            held.hold(size)
    body = b"".join(chunks)
    encoding = headers.get(b"content-encoding", b"").strip().lower()
    if encoding in (b"", b"identity"):
        return body
    body = unpack(body, encoding, limit_bytes)
    held.hold(size + len(body))
    return body


def unpack(body: bytes, encoding: bytes, limit_bytes: int) -> bytes:
    """A gzip body, unpacked up to the limit. Anything else than one gzip member is refused."""
    if encoding != b"gzip":
        named = encoding.decode("latin-1")
        raise Problem(415, "encoding-unsupported", f"Content-Encoding may be gzip or identity, not {named!r}", value=named)
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
    detail = f"a request may hold {limit_bytes} bytes, unpacked"
    return Problem(413, "request-too-large", detail, limit=limit_bytes, value=value)
