"""A valid token is accepted; every other token is answered 401."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from api.auth import tokens
from api.http.problems import Problem
from streams.runtime import SettingError, load_settings
from tests.support.access import assert_refused
from tests.support.clock import stopwatch
from tests.support.commands import key_command
from tests.support.events import body
from tests.support.http import App, opened
from tests.support.proxy import until
from tests.support.servers import Server
from tests.support.tokens import PAYLOAD, PRIVATE, RSA, SECRET, Published, by_hand, claims, hs256, pem, published, signed

pytestmark = pytest.mark.anyio


def by_hand_raw(header: bytes, payload: bytes) -> str:
    """A token with any content, signed with the secret."""
    parts = [base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, payload)]
    signature = hmac.digest(SECRET.encode(), b".".join(parts), hashlib.sha256)
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


# JSON values for headers and claims. None is an existing role, so every token must be refused.
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400) | st.just(1e308),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
hostile = _values | st.dictionaries(
    st.sampled_from(["alg", "typ", "kid", "crit", "b64", "exp", "nbf", "iat", "aud", "iss", "sub", "jti", "tenant"]),
    _values,
    max_size=6,
)


@pytest.fixture
async def app(server: Server, tmp_path: Path) -> AsyncIterator[App]:
    async with opened(server, tmp_path, AUTH="keys", JWT_SECRET=SECRET) as app:
        yield app


async def post(app: App, token: str, **headers: str) -> httpx.Response:
    return await app.client.post("/api/events", content=body(), headers={"Authorization": f"Bearer {token}"} | headers)


async def assert_not_believed(app: App, token: str) -> str:
    answer = await post(app, token)
    assert_refused(answer, 401, "token-invalid")
    assert await app.log.summaries() == []
    return str(answer.json()["detail"])


async def test_a_token_names_its_tenant(app: App) -> None:
    assert (await post(app, signed(claims()))).status_code == 202
    assert (await post(app, signed(claims()), **{"X-Tenant-ID": "acme"})).status_code == 200
    assert_refused(await post(app, signed(claims()), **{"X-Tenant-ID": "globex"}), 403, "tenant-mismatch")
    assert_refused(await post(app, signed(claims(role="read"))), 403, "role-insufficient")
    assert [summary.tenant for summary in await app.log.summaries()] == ["acme"]


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": None},
        {"exp": 1_700_000_000},
        {"exp": "4000000000"},
        {"exp": "soon"},
        {"exp": True},
        {"nbf": 4_000_000_000},
        {"iat": 4_000_000_000},
        {"tenant": None},
        {"tenant": 7},
        {"tenant": ""},
        {"tenant": "../acme"},
        {"tenant": ["acme"]},
        {"role": None},
        {"role": "root"},
        {"role": ["admin"]},
    ],
    ids=str,
)
async def test_an_incomplete_token_is_refused(app: App, changes: dict[str, Any]) -> None:
    token = by_hand({"alg": "HS256", "typ": "JWT"}, json.dumps(claims(**changes)).encode(), hs256(SECRET.encode()))

    await assert_not_believed(app, token)


@pytest.mark.parametrize(
    "token",
    [
        by_hand({"alg": "none"}, PAYLOAD, lambda _: b""),
        by_hand({"alg": "None", "typ": "JWT"}, PAYLOAD, lambda _: b""),
        by_hand({"alg": "HS256"}, PAYLOAD, lambda _: b""),
        by_hand({"alg": "HS256"}, PAYLOAD, hs256(b"another secret of thirty-two bytes!")),
        by_hand({"alg": "HS512"}, PAYLOAD, lambda text: hmac.digest(SECRET.encode(), text, "sha512")),
        by_hand({"alg": "HS256", "crit": ["x"], "x": 1}, PAYLOAD, hs256(SECRET.encode())),
        by_hand({"alg": "HS256"}, b"[]", hs256(SECRET.encode())),
        by_hand({"alg": "HS256"}, b"\xff", hs256(SECRET.encode())),
        by_hand({}, PAYLOAD, hs256(SECRET.encode())),
        by_hand({"alg": "HS256", "crit": ["\ud800"]}, PAYLOAD, hs256(SECRET.encode())),
        signed({"tenant": "acme"}, RSA, "RS256"),
        "..",
        "a.b.c",
        "e30.e30.",
    ],
    ids=range(14),
)
async def test_a_forged_or_malformed_token_is_refused(app: App, token: str) -> None:
    await assert_not_believed(app, token)


@given(
    header=st.one_of(st.binary(max_size=40), hostile.map(lambda value: json.dumps(value).encode())),
    payload=st.one_of(st.binary(max_size=40), hostile.map(lambda value: json.dumps(value).encode())),
)
def test_every_malformed_token_is_refused_without_an_error(header: bytes, payload: bytes) -> None:
    believed = []
    for key in (SECRET, RSA.public_key()):
        verifier = tokens.TokenVerifier(load_settings({"AUTH": "keys", "JWT_SECRET": SECRET}))
        verifier._fixed_key = ("HS256", SECRET) if key is SECRET else ("RS256", key)
        for first in (header, b'{"alg":"HS256"}'):
            with pytest.raises(Problem) as refused:
                believed.append(asyncio.run(verifier.claims(by_hand_raw(first, payload))))
            assert (refused.value.status, refused.value.code) == (401, "token-invalid")
    assert believed == []


@pytest.mark.parametrize("part", ["header", "payload"])
async def test_a_deeply_nested_token_is_refused(app: App, part: str) -> None:
    deep = b"[" * 2_900
    token = by_hand_raw(deep, PAYLOAD) if part == "header" else by_hand_raw(b'{"alg":"HS256"}', deep)

    await assert_not_believed(app, token)


async def test_a_token_of_a_megabyte_is_refused_before_it_is_read(app: App) -> None:
    answer = await post(app, signed(claims(filler="x" * 1_000_000)))

    assert_refused(answer, 401, "credential-invalid")


@pytest.mark.parametrize("algorithm", PRIVATE)
async def test_the_algorithm_follows_from_the_key_and_not_from_the_token(server: Server, tmp_path: Path, algorithm: str) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(pem(PRIVATE[algorithm]))
    public = path.read_bytes()
    async with opened(server, tmp_path, AUTH="keys", JWT_PUBLIC_KEY_FILE=path) as app:
        await assert_not_believed(app, by_hand({"alg": "HS256"}, PAYLOAD, hs256(public)))
        await assert_not_believed(app, by_hand({"alg": "HS256"}, PAYLOAD, hs256(public.strip())))
        for other, key in PRIVATE.items():
            if other != algorithm:
                await assert_not_believed(app, signed(claims(), key, other))
        if algorithm == "RS256":
            await assert_not_believed(app, signed(claims(), RSA, "PS256"))
            await assert_not_believed(app, signed(claims(), RSA, "RS512"))

        assert (await post(app, signed(claims(), PRIVATE[algorithm], algorithm))).status_code == 202


async def test_audience_issuer_leeway_and_claim_names_are_checked_as_set(server: Server, tmp_path: Path) -> None:
    settings = {"JWT_AUDIENCE": "penstock", "JWT_ISSUER": "https://id", "JWT_TENANT_CLAIM": "org", "JWT_ROLE_CLAIM": "may"}
    given = claims(tenant=None, role=None, org="acme", may="write", aud="penstock", iss="https://id")
    async with opened(server, tmp_path, AUTH="keys", JWT_SECRET=SECRET, JWT_LEEWAY_SECONDS=30, **settings) as app:
        for wrong in ({"aud": "other"}, {"iss": "https://other"}, {"org": "-"}, {"exp": int(time.time()) - 40}):
            await assert_not_believed(app, signed(given | wrong))
        for missing in ("aud", "iss", "org", "may"):
            await assert_not_believed(app, signed({name: value for name, value in given.items() if name != missing}))

        assert (await post(app, signed(given | {"exp": int(time.time()) - 20}))).status_code == 202
        assert (await post(app, signed(given | {"aud": ["other", "penstock"]}))).status_code == 200


async def test_keys_work_beside_tokens(server: Server, tmp_path: Path) -> None:
    key = key_command(tmp_path, "create", "globex").stdout.strip()
    async with opened(server, tmp_path, AUTH="keys", JWT_SECRET=SECRET) as app:
        assert (await post(app, key)).status_code == 202
        assert (await post(app, signed(claims()))).status_code == 202


async def test_without_a_key_for_tokens_every_token_is_refused(server: Server, tmp_path: Path) -> None:
    async with opened(server, tmp_path, AUTH="keys") as app:
        assert "no tokens" in await assert_not_believed(app, signed(claims()))


# -- keys behind a URL -------------------------------------------------------------------------------------------------


@pytest.fixture
def jwks() -> Iterator[Published]:
    with published() as found:
        yield found


@pytest.fixture
async def fetching(server: Server, tmp_path: Path, jwks: Published) -> AsyncIterator[App]:
    async with opened(server, tmp_path, AUTH="keys", JWT_JWKS_URL=jwks.url) as app:
        yield app


def of_set(algorithm: str, key_id: str | None) -> str:
    return signed(claims(), PRIVATE[algorithm], algorithm, **({"kid": key_id} if key_id else {}))


async def test_keys_are_fetched_once_and_again_for_an_unknown_key_id(
    jwks: Published, fetching: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    jwks.publish(("RS256", "one"), ("EdDSA", "two"))
    assert (await post(fetching, of_set("RS256", "one"))).status_code == 202
    assert (await post(fetching, of_set("EdDSA", "two"))).status_code == 200
    assert jwks.asked == 1

    jwks.publish(("ES256", "three"))
    monkeypatch.setattr(tokens, "MIN_FETCH_INTERVAL_SECONDS", 0.0)
    assert (await post(fetching, of_set("ES256", "three"))).status_code == 200
    assert (await post(fetching, of_set("ES256", None))).status_code == 200  # without an id, the only key is used
    assert_refused(await post(fetching, of_set("RS256", "one")), 401, "token-invalid")
    assert jwks.asked == 3


async def test_many_unknown_key_ids_cause_few_fetches(jwks: Published, fetching: App) -> None:
    jwks.publish(("RS256", "one"), ("EdDSA", "two"))
    for number in range(50):
        assert_refused(await post(fetching, of_set("RS256", f"unknown-{number}")), 401, "token-invalid")
    assert_refused(await post(fetching, of_set("RS256", None)), 401, "token-invalid")  # without an id, the key is ambiguous
    assert_refused(await post(fetching, of_set("RS256", "two")), 401, "token-invalid")  # a key of another type

    assert jwks.asked == 1


@pytest.mark.parametrize("broken", ["status", "empty"])
async def test_the_last_keys_stay_valid_while_the_url_does_not_answer(
    jwks: Published, fetching: App, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    jwks.publish(("RS256", "one"))
    assert (await post(fetching, of_set("RS256", "one"))).status_code == 202
    monkeypatch.setattr(tokens, "MAX_AGE_SECONDS", 0.0)
    monkeypatch.setattr(tokens, "MIN_FETCH_INTERVAL_SECONDS", 0.0)
    if broken == "status":
        jwks.status = 500
    else:
        jwks.keys = []

    assert (await post(fetching, of_set("RS256", "one"))).status_code == 200
    await until(lambda: jwks.asked == 2)
    assert (await post(fetching, of_set("RS256", "one"))).status_code == 200


async def test_a_token_with_a_known_key_never_waits_for_the_url(
    jwks: Published, fetching: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    jwks.publish(("RS256", "one"))
    assert (await post(fetching, of_set("RS256", "one"))).status_code == 202
    monkeypatch.setattr(tokens, "MAX_AGE_SECONDS", 0.0)
    monkeypatch.setattr(tokens, "MIN_FETCH_INTERVAL_SECONDS", 0.0)

    with jwks.held:
        for _ in range(5):
            assert (await post(fetching, of_set("RS256", "one"))).status_code == 200
        await until(lambda: jwks.asked == 2)


async def test_a_token_with_an_unknown_key_does_not_wait_long(
    jwks: Published, fetching: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "FETCH_SECONDS", 0.3)
    jwks.publish(("RS256", "one"))
    with jwks.held:
        with stopwatch() as watch:
            for _ in range(3):
                assert_refused(await post(fetching, of_set("RS256", "one")), 503, "token-keys-unavailable")
            assert watch.wall_seconds >= 0.9
            assert watch.seconds < 2.5
        assert jwks.asked == 1
    await until(lambda: jwks.answered == 1)

    assert (await post(fetching, of_set("RS256", "one"))).status_code == 202


async def test_before_the_first_fetch_a_token_is_answered_503(jwks: Published, fetching: App) -> None:
    jwks.status = 500

    answer = await post(fetching, of_set("RS256", "one"))

    assert_refused(answer, 503, "token-keys-unavailable")
    assert answer.headers["retry-after"] == "1"


async def test_a_malformed_key_does_not_spoil_the_set(jwks: Published, fetching: App) -> None:
    jwks.publish(("RS256", "one"))
    odd: list[Any] = [7, {}, {"kty": "oct"}, {"kty": "RSA", "kid": "x"}, {"kty": ["RSA"], "alg": []}]
    jwks.keys = [*odd, {**jwks.keys[0], "kid": ["x"]}, {**jwks.keys[0], "kid": "enc", "use": "enc"}, *jwks.keys]

    assert (await post(fetching, of_set("RS256", "one"))).status_code == 202
    assert_refused(await post(fetching, of_set("RS256", "enc")), 401, "token-invalid")


@pytest.mark.parametrize("content", [b"", b"[", b"[" * 100_000, b"7", b'{"keys": 7}', b'{"keys": {}}'], ids=range(6))
async def test_a_url_with_a_wrong_answer_is_like_a_url_without_an_answer(jwks: Published, fetching: App, content: bytes) -> None:
    jwks.content = content

    assert_refused(await post(fetching, of_set("RS256", "one")), 503, "token-keys-unavailable")


async def test_a_secret_in_a_key_set_is_not_used(jwks: Published, fetching: App) -> None:
    secret = base64.urlsafe_b64encode(SECRET.encode()).rstrip(b"=").decode()
    jwks.keys = [{"kty": "oct", "k": secret, "kid": "one"}]

    assert_refused(await post(fetching, signed(claims(), SECRET, "HS256", kid="one")), 503, "token-keys-unavailable")


# -- unusable keys -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"JWT_SECRET": "short"}, "JWT_SECRET"),
        ({"JWT_PUBLIC_KEY_FILE": "/nowhere"}, "JWT_PUBLIC_KEY_FILE"),
        ({"JWT_PUBLIC_KEY_FILE": __file__}, "JWT_PUBLIC_KEY_FILE"),
        ({"JWT_JWKS_URL": "file:///etc/passwd"}, "JWT_JWKS_URL"),
        ({"JWT_JWKS_URL": "https://user:password@id/keys"}, "JWT_JWKS_URL"),
        ({"JWT_SECRET": SECRET, "JWT_JWKS_URL": "https://id/keys"}, "JWT_JWKS_URL"),
        ({"JWT_SECRET": SECRET, "AUTH": "open"}, "JWT_SECRET"),
    ],
)
def test_an_unusable_key_stops_the_start(settings: dict[str, str], name: str) -> None:
    with pytest.raises(SettingError, match=f"Setting {name} "):
        tokens.TokenVerifier(load_settings({"AUTH": "keys"} | settings))


@pytest.mark.parametrize(
    "weak", [rsa.generate_private_key(public_exponent=65_537, key_size=1_024), ec.generate_private_key(ec.SECP384R1())]
)
def test_a_weak_or_unusual_public_key_stops_the_start(tmp_path: Path, weak: Any) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(pem(weak))

    with pytest.raises(SettingError, match="JWT_PUBLIC_KEY_FILE"):
        tokens.TokenVerifier(load_settings({"AUTH": "keys", "JWT_PUBLIC_KEY_FILE": str(path)}))
