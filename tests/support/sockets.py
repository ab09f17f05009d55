"""HTTP by hand, for tests that send what no client sends."""

import json
import re
import socket
from typing import Any

POST = b"POST /api/events HTTP/1.1\r\nHost: x\r\nX-Tenant-ID: acme\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
SECURITY = (b"x-content-type-options: nosniff", b"cache-control: no-store", b"referrer-policy: no-referrer")


def post_of(raw: bytes, *headers: bytes) -> bytes:
    """A POST of a body with its length."""
    return POST + b"".join(header + b"\r\n" for header in headers) + b"Content-Length: %d\r\n\r\n" % len(raw) + raw


def everything(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    received = b""
    while chunk := connection.recv(65_536):
        received += chunk
    return received


def one_answer(connection: socket.socket) -> bytes:
    """The next response, whole, of a connection that stays open."""
    received = b""
    while b"\r\n\r\n" not in received or len(received) < _end_of_answer(received):
        chunk = connection.recv(65_536)
        assert chunk, f"closed after {received!r}"
        received += chunk
    return received


def answers_in(received: bytes) -> list[tuple[int, dict[str, Any]]]:
    """Status and JSON of each response in the bytes."""
    answers = []
    while received:
        head, _, following = received.partition(b"\r\n\r\n")
        status = int(head.split(b" ")[1])
        end = _end_of_answer(received)
        if status != 100:
            answers.append((status, json.loads(following[: end - len(head) - 4])))
        received = received[end:]
    return answers


def _end_of_answer(received: bytes) -> int:
    """Where the first response ends, of which the head is there."""
    head, _, _ = received.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    return len(head) + 4 + (int(length[1]) if length else 0)


def assert_refused(received: bytes, status: int, code: str) -> dict[str, Any]:
    """The bytes are one problem and no more; its members."""
    [(answered, problem)] = answers_in(received)
    assert (answered, problem["status"], problem["code"]) == (status, status, code)
    assert problem["type"].endswith(code)
    assert problem["detail"]
    assert b"application/problem+json" in received
    assert set(SECURITY) <= set(received.partition(b"\r\n\r\n")[0].split(b"\r\n"))
    assert re.findall(rb"\r\nx-request-id: ([A-Za-z0-9._-]{1,64})\r\n", received)
    return problem
