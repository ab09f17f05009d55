"""Signed tokens, and a server that publishes keys."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

SECRET = "a secret of thirty-two bytes, or more"


RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


PRIVATE: dict[str, Any] = {
    "RS256": RSA,
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def pem(private: Any) -> bytes:
    public = private.public_key()
    return bytes(public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))


def claims(**changes: Any) -> dict[str, Any]:
    members = {"tenant": "acme", "role": "admin", "exp": int(time.time()) + 60} | changes
    return {name: value for name, value in members.items() if value is not None}


def signed(payload: dict[str, Any], key: Any = SECRET, algorithm: str = "HS256", **header: Any) -> str:
    return jwt.encode(payload, key, algorithm, headers=header or None)


def by_hand(header: dict[str, Any], payload: bytes, sign: Callable[[bytes], bytes]) -> str:
    """A token that no library would make."""
    parts = [base64.urlsafe_b64encode(part).rstrip(b"=") for part in (json.dumps(header).encode(), payload)]
    return b".".join([*parts, base64.urlsafe_b64encode(sign(b".".join(parts))).rstrip(b"=")]).decode()


def hs256(key: bytes) -> Callable[[bytes], bytes]:
    return lambda text: hmac.digest(key, text, hashlib.sha256)


PAYLOAD = json.dumps({"tenant": "acme", "role": "admin", "exp": 4_000_000_000}).encode()


class Published:
    """A JWKS URL: what it answers, and how often it was asked."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        self.status, self.asked, self.url = 200, 0, ""
        self.answered = 0
        self.content: bytes | None = None
        self.held = Lock()  # while a test holds it, nothing is answered

    def publish(self, *names: tuple[str, str]) -> None:
        """Keys by algorithm and id."""
        algorithms: dict[str, Any] = {
            "RS256": jwt.algorithms.RSAAlgorithm,
            "ES256": jwt.algorithms.ECAlgorithm,
            "EdDSA": jwt.algorithms.OKPAlgorithm,
        }
        self.keys = [
            {**algorithms[algorithm].to_jwk(PRIVATE[algorithm].public_key(), as_dict=True), "kid": key_id}
            for algorithm, key_id in names
        ]


@contextmanager
def published() -> Iterator[Published]:
    url = Published()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url.asked += 1
            with url.held:
                pass
            self.send_response(url.status)
            self.end_headers()
            self.wfile.write(json.dumps({"keys": url.keys}).encode() if url.content is None else url.content)
            url.answered += 1

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        url.url = f"http://127.0.0.1:{served.server_address[1]}/keys"
        thread = Thread(target=served.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield url
        finally:
            served.shutdown()
            thread.join()
