"""Every route, for every role and tenant, with hostile headers and tokens."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

import api as app
from api.auth.credentials import KEY_ID_LENGTH, ROLES, new_key
from projector.store.sqlite import SqliteStore
from streams import event_identity, parse_event
from tests.support.access import basic, kept
from tests.support.events import body
from tests.support.http import Api, wait_until
from tests.support.sockets import assert_refused, everything
from tests.support.tokens import PAYLOAD, PRIVATE, RSA, by_hand, claims, hs256, pem, published, signed
from tests.support.vitals import healthy, others_served

# The act that each route needs a permission for, or None. A route that is missing here fails a test.
ACTS = {
    "GET /": None,
    "POST /api/events": "append",
    "GET /api/events": "read",
    "GET /api/receipts": "read",
    "GET /api/receipts/{position}": "read",
    "GET /api/sessions": "read",
    "GET /api/sessions/{session_id:path}": "read",
    "GET /healthz": None,
    "GET /metrics": "operate",
    "GET /openapi.json": None,
    "GET /readyz": None,
}
TIME = "2026-01-01T10:00:00Z"
SEGMENT = json.dumps({"type": "track", "event": "x", "userId": "u", "messageId": "m", "timestamp": TIME})
POSTHOG = json.dumps({"event": "x", "distinct_id": "u", "uuid": "1", "timestamp": TIME})
MIXPANEL = json.dumps({"event": "x", "properties": {"time": 1767261600, "$insert_id": "i"}})
PROFILE = json.dumps({"$distinct_id": "u", "$set": {"plan": "pro"}})
PAGE_VIEW = {"e": "pv", "eid": "6f0c2f0e-7d0b-4a0f-9b7f-3b1c5a2e4d68", "p": "web", "tv": "js-4", "dtm": "1767261600000"}
SNOWPLOW = json.dumps({"schema": "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4", "data": [PAGE_VIEW]})
TP2 = "com.snowplowanalytics.snowplow/tp2"
# The body or query that is sent to each foreign route. All of them append.
SENT = {
    **dict.fromkeys(("POST /v1/{call}", "POST /beacon/v1/{call}", "POST /api/s/{call}", "POST /api/s/s2s/{call}"), SEGMENT),
    "POST /api/v1/events": json.dumps({"specversion": "1.0", "id": "1", "source": "s", "type": "t"}),
    **dict.fromkeys(("POST /batch", "POST /e", "POST /capture", "POST /i/v0/e"), POSTHOG),
    "POST /2/httpapi": json.dumps({"events": [{"event_type": "x", "user_id": "u", "insert_id": "i", "time": 1767261600000}]}),
    **dict.fromkeys(("POST /track", "POST /import"), MIXPANEL),
    **dict.fromkeys(("POST /engage", "POST /groups"), PROFILE),
    "GET /track": urlencode({"data": MIXPANEL}),
    **dict.fromkeys(("GET /engage", "GET /groups"), urlencode({"data": PROFILE})),
    **dict.fromkeys((f"POST /{TP2}", f"POST /{{key}}/{TP2}"), SNOWPLOW),
    **dict.fromkeys(("GET /i", "GET /{key}/i"), urlencode(PAGE_VIEW)),
}
WHO = ["none", "revoked", *ROLES]
KEYS = {(tenant, who): new_key("admin" if who == "revoked" else who) for tenant in ("acme", "globex") for who in WHO[1:]}  # type: ignore[arg-type]
OTHERS = new_key("write")
STATED = {"aud": "penstock", "iss": "https://id"}
EVENT = body(canary="of globex", session_id="S1")


def add_keys(path: Path) -> None:
    path.parent.mkdir(parents=True)
    with SqliteStore(str(path), cache_mib=8) as store:
        for (tenant, who), secret in KEYS.items():
            store.api_keys.add(kept(secret, tenant, "admin" if who == "revoked" else who))
            if who == "revoked":
                store.api_keys.revoke(secret[:KEY_ID_LENGTH])
        store.api_keys.add(kept(OTHERS, "others", "write"))


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A process with keys and tokens, and an event of each tenant."""
    folder = tmp_path_factory.mktemp("access")
    add_keys(folder / "api" / "penstock.db")
    with published() as jwks:
        jwks.publish(("RS256", "one"))
        settings = {"JWT_JWKS_URL": jwks.url, "JWT_AUDIENCE": STATED["aud"], "JWT_ISSUER": STATED["iss"], "JWT_LEEWAY_SECONDS": 1}
        settings["METRICS_TOKEN"] = "whoever operates this"
        with healthy(folder, AUTH="keys", **settings) as api:
            for tenant in ("acme", "globex"):
                answer = asked(api, "POST", "/api/events", ("Authorization", f"Bearer {KEYS[tenant, 'admin']}"), content=EVENT)
                assert answer.status_code == 202
                wait_until(lambda tenant=tenant: "S1" in read_as(api, tenant), "its event is in the tables")  # type: ignore[misc]
            yield api


@pytest.fixture(autouse=True)
def meanwhile(api: Api) -> Iterator[None]:
    with others_served(api, Authorization=f"Bearer {OTHERS}"):
        yield
    assert [read_as(api, "globex").count("position"), read_as(api, "globex").count("of globex")] == [1, 1]


def asked(api: Api, method: str, path: str, *headers: tuple[str, str], content: bytes | None = None) -> httpx.Response:
    return httpx.request(method, f"{api.url}{path}", headers=list(headers), content=content, timeout=10)


def read_as(api: Api, tenant: str) -> str:
    return asked(api, "GET", "/api/events", ("Authorization", f"Bearer {KEYS[tenant, 'read']}")).text


def assert_not_let_in(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "of globex" not in answer.text and "S1" not in answer.text


# -- every route, every role, every tenant -----------------------------------------------------------------------------


def test_every_route_is_in_a_table() -> None:
    routes = [route for route in app.ROUTES if route.include_in_schema]
    asked_for = {f"{method} {route.path}" for route in routes for method in (route.methods or ()) if method != "HEAD"}

    assert asked_for == set(ACTS) | set(SENT)


def outcome(act: str | None, who: str, named: str) -> tuple[int, str | None]:
    """The status and code of a request to a route."""
    if act is None:
        return 200, None
    if who in ("none", "revoked") or act == "operate":  # no tenant's key permits it
        return 401, "credential-missing" if who == "none" else "credential-unknown"
    if act not in ROLES[who]:
        return 403, "role-insufficient"
    if named == "other":
        return 403, "tenant-mismatch"
    return 200, None


@pytest.mark.parametrize("named", ["absent", "own", "other"])
@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("route", ACTS)
def test_a_request_is_admitted_exactly_as_the_table_says(api: Api, route: str, who: str, named: str) -> None:
    method, _, path = route.partition(" ")
    event_hash, _ = event_identity("acme", parse_event(EVENT))
    path = path.replace("{position}", "1").replace("{session_id:path}", "S1")
    headers = [("X-Tenant-ID", {"own": "acme", "other": "globex"}[named])] if named != "absent" else []
    headers += [("Authorization", f"Bearer {KEYS['acme', who]}")] if who != "none" else []
    if path == "/api/receipts":
        path += f"?event_hash={event_hash}"

    answers = [asked(api, method, path, *headers, content=EVENT if method == "POST" else None)]
    answers += [asked(api, "HEAD", path, *headers)] if method == "GET" else []

    status, code = outcome(ACTS[route], who, named)
    assert {answer.status_code for answer in answers} == {status}, answers[0].text
    if code:
        assert_not_let_in(answers[0], status, code)
    elif ACTS[route] == "read":
        assert "S1" in answers[0].text or event_hash in answers[0].text


@pytest.mark.parametrize("named", ["absent", "own", "other"])
@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("route", SENT)
def test_a_foreign_client_is_admitted_exactly_as_the_table_says(api: Api, route: str, who: str, named: str) -> None:
    method, _, path = route.partition(" ")
    key = KEYS.get(("acme", who), "")
    headers = [("X-Tenant-ID", {"own": "acme", "other": "globex"}[named])] if named != "absent" else []
    if "{key}" not in path:
        headers += [("Authorization", f"Bearer {key}")] if key else []
    path = path.replace("{key}", key or "nobody").replace("{call}", "track")
    content = SENT[route].encode()
    if method == "GET":
        path, content = f"{path}?{SENT[route]}", b""

    answer = asked(api, method, path, *headers, content=content)

    status, code = outcome("append", who, named)
    if code == "credential-missing" and "{key}" in route:
        code = "credential-unknown"
    if code is None:
        assert answer.status_code in (200, 204), answer.text
        return
    assert answer.status_code in (status, 400), answer.text  # Amplitude's SDKs stop only after a 400
    assert answer.json()["error"].endswith(code)
    assert not key or key not in answer.text


# -- headers -----------------------------------------------------------------------------------------------------------

OWN = f"Bearer {KEYS['acme', 'admin']}"
OTHER = f"Bearer {KEYS['globex', 'admin']}"


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ([("Authorization", OWN), ("Authorization", OWN)], 400, "credential-ambiguous"),
        ([("Authorization", OWN), ("authorization", OTHER)], 400, "credential-ambiguous"),
        ([("Authorization", OWN), ("X-Write-Key", KEYS["globex", "admin"])], 400, "credential-ambiguous"),
        ([("Authorization", OWN), ("X-Tenant-ID", "acme"), ("X-Tenant-ID", "acme")], 400, "tenant-ambiguous"),
        ([("Authorization", OWN), ("X-Tenant-ID", "acme"), ("x-tenant-id", "globex")], 400, "tenant-ambiguous"),
        ([("Authorization", OWN), ("X-Tenant-ID", "acme,globex")], 400, "tenant-invalid"),
        ([("X_Authorization", OWN)], 401, "credential-missing"),
        ([("X_Write_Key", KEYS["acme", "admin"])], 401, "credential-missing"),
        ([("Proxy-Authorization", OWN)], 401, "credential-missing"),
        ([("Cookie", f"Authorization={OWN}")], 401, "credential-missing"),
        ([("Authorization", f"{OWN}, {OWN}")], 401, "credential-unknown"),
        ([("Authorization", basic(f"acme:{KEYS['acme', 'admin']}"))], 401, "credential-unknown"),
        ([("Authorization", f"Bearer {KEYS['acme', 'admin'][:KEY_ID_LENGTH]}")], 401, "credential-unknown"),
        ([("Authorization", "Bearer " + "x" * 9_000)], 401, "credential-invalid"),
        ([("Authorization", "Bearer ' OR 1=1 --")], 401, "credential-unknown"),
    ],
    ids=range(15),
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_ambiguous_or_empty_headers_are_refused(
    api: Api, method: str, headers: list[tuple[str, str]], status: int, code: str
) -> None:
    answer = asked(api, method, "/api/events", *headers, content=body(n="new") if method == "POST" else None)

    assert_not_let_in(answer, status, code)


def test_an_underscore_does_not_name_another_tenant(api: Api) -> None:
    asked(api, "POST", "/v1/track", ("Authorization", OWN), content=SEGMENT.encode())  # it tells the rows of both tenants apart
    wait_until(lambda: '"event_id":"m"' in read_as(api, "acme"), "it is in the tables")

    answer = asked(api, "GET", "/api/events", ("Authorization", OWN), ("X_Tenant_ID", "globex"))

    assert answer.status_code == 200
    assert answer.json() == asked(api, "GET", "/api/events", ("Authorization", OWN)).json()
    assert answer.text != read_as(api, "globex")


# -- tokens ------------------------------------------------------------------------------------------------------------


def token(**changes: Any) -> str:
    return signed(claims(**(STATED | changes)), RSA, "RS256", kid="one")


LYING = {
    "no algorithm": lambda: by_hand({"alg": "none", "kid": "one"}, PAYLOAD, lambda _: b""),
    "the public key as secret": lambda: by_hand({"alg": "HS256", "kid": "one"}, PAYLOAD, hs256(pem(RSA))),
    "the public key without its last line end": lambda: by_hand({"alg": "HS256", "kid": "one"}, PAYLOAD, hs256(pem(RSA).strip())),
    "another key's signature": lambda: signed(claims(**STATED), PRIVATE["ES256"], "ES256", kid="one"),
    "no signature": lambda: token().rpartition(".")[0] + ".",
    "another's payload": lambda: ".".join([*token().split(".")[:1], token(tenant="globex").split(".")[1], token().split(".")[2]]),
    "expired": lambda: token(exp=int(time.time()) - 60),
    "not yet valid": lambda: token(nbf=int(time.time()) + 600),
    "for another": lambda: token(aud="other"),
    "for nobody": lambda: token(aud=None),
    "of another issuer": lambda: token(iss="https://other"),
    "of no issuer": lambda: token(iss=None),
    "an unknown key": lambda: signed(claims(**STATED), RSA, "RS256", kid="two"),
    "no end": lambda: token(exp=None),
    "an end in words": lambda: token(exp="4000000000"),
    "no tenant": lambda: token(tenant=None),
    "a tenant in another's keys": lambda: token(tenant="globex}:log:acme"),
    "a role of its own": lambda: token(role="root"),
}  # fmt: skip


def test_a_complete_token_is_accepted(api: Api) -> None:
    assert asked(api, "GET", "/api/events", ("Authorization", f"Bearer {token()}")).status_code == 200


@pytest.mark.parametrize("what", LYING)
def test_a_false_token_is_refused_with_a_sentence(api: Api, what: str) -> None:
    assert asked(api, "GET", "/api/events", ("Authorization", f"Bearer {token()}")).status_code == 200
    for method in ("GET", "POST"):
        answer = asked(api, method, "/api/events", ("Authorization", f"Bearer {LYING[what]()}"), content=body(n="token"))

        assert (answer.status_code, answer.json()["code"]) == (401, "token-invalid")
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_token_of_a_megabyte_is_refused_with_the_limit(api: Api) -> None:
    with api.connect() as connection:
        connection.sendall(b"GET /api/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a.b." + b"x" * 1_000_000 + b"\r\n\r\n")

        problem = assert_refused(everything(connection), 431, "headers-too-large")
    assert problem["value"] > problem["limit"] == 32 * 1024
