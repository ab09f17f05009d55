"""Keys, Basic credentials and refusals."""

import base64
import time

import httpx

from api.auth.credentials import KEY_ID_LENGTH, hash_of
from projector import ApiKey


def kept(secret: str, tenant: str, role: str, label: str = "") -> ApiKey:
    return ApiKey(tenant, secret[:KEY_ID_LENGTH], hash_of(secret), role, label, time.time_ns() // 1_000)


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


def assert_refused(answer: httpx.Response, status: int, code: str) -> None:
    problem = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code), problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["detail"]
    assert ("www-authenticate" in answer.headers) == (status == 401)
