"""With AUTH=keys, a key admits a request to its tenant, within its role."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.concurrency import run_in_threadpool

import api
from api.auth import new_tenants, registry
from api.auth.credentials import CREDENTIAL_LIMIT_BYTES, KEY_ID_LENGTH, ROLES, hash_of, new_key
from api.auth.registry import Registry
from api.ingest import PostForeign
from projector import StoreUnavailable
from projector.live.worker import Worker
from projector.rebuild.rebuild import rebuild, rollback
from projector.store.sqlite import SqliteStore
from streams import Log
from streams.limits import NO_LIMITS
from tests.support.access import assert_refused, basic, kept
from tests.support.clock import stopwatch
from tests.support.commands import key_command
from tests.support.events import body, events
from tests.support.http import Api, App, environment, opened, running, wait_until
from tests.support.proxy import until
from tests.support.servers import Server

pytestmark = pytest.mark.anyio

KEYS = {f"{tenant} {role}": new_key(role) for tenant in ("acme", "globex") for role in ROLES}  # type: ignore[arg-type]


def add_keys(path: Path) -> None:
    with SqliteStore(str(path), cache_mib=8) as store:
        for name, secret in KEYS.items():
            store.api_keys.add(kept(secret, *name.split()))


@pytest.fixture
async def app(server: Server, tmp_path: Path) -> AsyncIterator[App]:
    add_keys(tmp_path / "penstock.db")
    async with opened(server, tmp_path, AUTH="keys") as app:
        yield app


async def post(app: App, headers: Any) -> httpx.Response:
    return await app.client.post("/api/events", content=body(), headers=headers)


# -- credentials -------------------------------------------------------------------------------------------------------

KEY = KEYS["acme write"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {KEY} "},
        {"Authorization": basic(f"{KEY}:")},
        {"Authorization": basic(KEY)},
        {"Authorization": basic(f"{KEY}:whatever")},
        {"X-Write-Key": KEY},
        {"X-Write-Key": KEY, "X-Tenant-ID": "acme"},
    ],
    ids=range(7),
)
async def test_a_key_names_its_tenant_in_every_header_that_may_hold_it(app: App, headers: dict[str, str]) -> None:
    answer = await post(app, headers)

    assert answer.status_code == 202
    assert [summary.tenant for summary in await app.log.summaries()] == ["acme"]


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ([], 401, "credential-missing"),
        ([("X-Tenant-ID", "acme")], 401, "credential-missing"),
        ([("X_Write_Key", KEY)], 401, "credential-missing"),
        ([("X-Write-Key", "")], 401, "credential-unknown"),
        ([("X-Write-Key", KEY[:-1])], 401, "credential-unknown"),
        ([("X-Write-Key", KEY + "x")], 401, "credential-unknown"),
        ([("X-Write-Key", KEY.swapcase())], 401, "credential-unknown"),
        ([("X-Write-Key", new_key("write"))], 401, "credential-unknown"),
        ([("X-Write-Key", hash_of(KEY).hex())], 401, "credential-unknown"),
        ([("X-Write-Key", "é".encode())], 401, "credential-invalid"),
        ([("X-Write-Key", "x" * (CREDENTIAL_LIMIT_BYTES + 1))], 401, "credential-invalid"),
        ([("Authorization", "Bearer")], 401, "credential-unknown"),
        ([("Authorization", KEY)], 401, "credential-invalid"),
        ([("Authorization", f"Digest {KEY}")], 401, "credential-invalid"),
        ([("Authorization", f"Basic {KEY}")], 401, "credential-invalid"),
        ([("Authorization", "Basic /////w==")], 401, "credential-invalid"),
        ([("Authorization", basic(f":{KEY}"))], 401, "credential-unknown"),
        ([("Authorization", f"Bearer {KEY}"), ("X-Write-Key", KEY)], 400, "credential-ambiguous"),
        ([("Authorization", f"Bearer {KEY}"), ("Authorization", f"Bearer {KEY}")], 400, "credential-ambiguous"),
        ([("X-Write-Key", KEY), ("X-Tenant-ID", "globex")], 403, "tenant-mismatch"),
        ([("X-Write-Key", KEY), ("X-Tenant-ID", "../acme")], 400, "tenant-invalid"),
        ([("X-Write-Key", KEY), ("X-Tenant-ID", "acme"), ("X-Tenant-ID", "acme")], 400, "tenant-ambiguous"),
    ],
    ids=range(22),
)
async def test_a_request_without_a_valid_key_is_refused(app: App, headers: list[tuple[str, Any]], status: int, code: str) -> None:
    encoded = [(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in headers]

    assert_refused(await post(app, encoded), status, code)
    assert await app.log.summaries() == []


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "credential-missing"),
        ({"X-Tenant-ID": "acme"}, 401, "credential-missing"),
        ({"X-Tenant-ID": "acme", "Authorization": "Bearer unknown"}, 401, "credential-unknown"),
        ({"X-Tenant-ID": "acme", "Authorization": "Bearer a.b.c"}, 401, "token-invalid"),
        ({"X-Tenant-ID": "acme", "Authorization": f"Bearer {KEYS['globex admin']}"}, 403, "tenant-mismatch"),
    ],
    ids=range(5),
)
async def test_every_route_that_concerns_a_tenant_needs_a_credential(
    app: App, headers: dict[str, str], status: int, code: str
) -> None:
    await app.log.append("acme", events(3))
    await app.project()
    routes = [route for route in api.ROUTES if route.path not in ("/", "/healthz", "/metrics", "/openapi.json", "/readyz")]
    assert len(routes) >= 6

    for route in routes:
        path = route.path
        for name, value in {"{position}": "1", "{session_id:path}": "S0", "{call}": "track"}.items():
            path = path.replace(name, value)
        for method in (route.methods or set()) - {"HEAD"}:
            answer = await app.client.request(method, path, headers=headers, content=body() if method == "POST" else None)
            if "{key}" in path and code == "credential-missing":  # the path has a key, but an unknown one
                assert (answer.status_code, answer.json()["error"]) == (401, "credential-unknown")
            elif isinstance(route.endpoint, PostForeign):
                assert answer.status_code in (status, 400)  # some SDKs need a 400
                assert answer.json()["error"].endswith(code)
            else:
                assert_refused(answer, status, code)
    assert [summary.last for summary in await app.log.summaries()] == [3]


# -- roles -------------------------------------------------------------------------------------------------------------

ROUTES = {
    "append": ["POST /api/events"],
    "read": [
        "GET /api/events",
        "GET /api/sessions",
        "GET /api/sessions/S0",
        "GET /api/receipts/1",
        "GET /api/receipts?event_hash={}",
    ],
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("tenant", ["acme", "globex"])
@pytest.mark.parametrize(("act", "route"), [(act, route) for act, routes in ROUTES.items() for route in routes])
async def test_a_key_does_what_its_role_allows_and_reaches_its_own_tenant_only(
    app: App, act: str, route: str, tenant: str, role: str
) -> None:
    [first, *_] = await app.log.append("acme", events(3))
    await app.project()
    method, _, path = route.format(first.event_hash).partition(" ")

    headers = {"Authorization": f"Bearer {KEYS[f'{tenant} {role}']}"}
    answer = await app.client.request(method, path, headers=headers, content=body() if method == "POST" else None)

    ends = {summary.tenant: summary.last for summary in await app.log.summaries()}
    if act not in ROLES[role]:
        assert_refused(answer, 403, "role-insufficient")
        assert ends == {"acme": 3}
    elif act == "append":
        assert answer.status_code == 202
        assert ends == ({"acme": 4} if tenant == "acme" else {"acme": 3, "globex": 1})
    elif tenant == "acme":
        assert answer.status_code == 200
        assert "S0" in answer.text or first.event_hash in answer.text
    else:
        assert answer.status_code == 404 or answer.json() in ({"events": [], "next": None}, {"sessions": [], "next": None})


# -- the life of keys --------------------------------------------------------------------------------------------------


def status_of(api: Api, key: str) -> int:
    return httpx.post(f"{api.url}/api/events", content=body(), headers={"Authorization": f"Bearer {key}"}).status_code


def test_a_key_is_created_used_listed_and_revoked_in_every_process(own_server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    keys: dict[str, Any] = {"AUTH": "keys", "DATA_DIR": folder}
    with running(own_server, tmp_path / "one", **keys) as one, running(own_server, tmp_path / "other", **keys) as other:
        made = key_command(folder, "create", "acme", "--label", "the shop")
        secret = made.stdout.strip()
        assert secret.startswith("ps_w_") and "acme" in made.stderr
        wait_until(lambda: {status_of(one, secret), status_of(other, secret)} <= {200, 202}, "both know the key")

        listed = key_command(folder, "list").stdout
        assert all(word in listed for word in ("acme", secret[:KEY_ID_LENGTH], "write", "the shop", "never"))

        assert key_command(folder, "revoke", secret[:KEY_ID_LENGTH]).returncode == 0
        time.sleep(2.0)
        assert (status_of(one, secret), status_of(other, secret)) == (401, 401)
        assert key_command(folder, "revoke", secret).returncode == 1
        output = one.said + other.said
    assert secret not in listed + output
    assert all(secret.encode() not in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_the_time_of_a_keys_last_use_is_stored(own_server: Server, tmp_path: Path) -> None:
    secret = key_command(tmp_path, "create", "acme", "--role", "admin", "--label", "[/x]").stdout.strip()
    key_command(tmp_path, "create", "globex")

    with running(own_server, tmp_path, AUTH="keys") as api:
        assert status_of(api, secret) == 202

    listed = key_command(tmp_path, "list").stdout
    [used, unused] = [line for line in listed.splitlines() if "ps_" in line]
    assert "never" not in used and "never" in unused and "[/x]" in used
    assert "globex" not in key_command(tmp_path, "list", "acme").stdout


def test_a_later_use_that_another_process_stored_is_kept(store: SqliteStore) -> None:
    store.api_keys.add(kept(KEY, "acme", "write"))

    for moment_us in (5, 7, 6):
        store.api_keys.note_uses({hash_of(KEY): moment_us})

    assert [key.last_used_at_us for key in store.api_keys.load()] == [7]


async def test_uses_are_stored_while_a_process_runs(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "NOTE_USES_SECONDS", 0)
    add_keys(tmp_path / "penstock.db")
    async with opened(server, tmp_path, AUTH="keys") as app:
        await post(app, {"X-Write-Key": KEY})
        await until(lambda: [key.role for key in app.store.api_keys.load() if key.last_used_at_us] == ["write"])


def test_uses_that_could_not_be_stored_are_stored_later(store: SqliteStore) -> None:
    store.api_keys.add(kept(KEY, "acme", "write"))
    ring = Registry(store, NO_LIMITS)
    ring.refresh()
    ring.find_key(KEY)
    store._busy_seconds = 0.05
    with SqliteStore(store.path) as other, other.transaction():
        ring.note_uses()
    assert store.api_keys.load()[0].last_used_at_us is None

    ring.note_uses()

    assert store.api_keys.load()[0].last_used_at_us is not None


def test_keys_of_another_database_are_never_accepted(store: SqliteStore, tmp_path: Path) -> None:
    with SqliteStore(str(tmp_path / "other.db")) as other:
        for one in (store, other):
            one.api_keys.add(kept(KEY, "acme", "write"))

        assert store.config_version() != other.config_version()


@pytest.mark.parametrize(("arguments", "words"), [(("create", "../acme"), "A-Z"), (("create", "acme", "--role", "all"), "read")])
def test_a_key_for_an_invalid_tenant_is_refused_with_a_sentence(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    done = key_command(tmp_path, *arguments)

    assert done.returncode > 0 and done.stdout == ""
    assert words in done.stderr


async def test_a_rebuild_does_not_touch_keys(log: Log, store: SqliteStore, worker: Worker) -> None:
    store.api_keys.add(kept(KEY, "acme", "write", "the shop"))
    await log.append("acme", events(3))
    await worker.run_to_end()
    before = store.api_keys.load()

    await rebuild(log, store)
    await rollback(log, store)
    await rebuild(log, store, tenants=["acme"])

    assert store.api_keys.load() == before


@pytest.mark.parametrize("content", [None, b"", b"no database" * 1_000], ids=["gone", "empty", "garbage"])
def test_the_last_keys_stay_valid_while_the_tables_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "tables.db"
    with SqliteStore(str(path), cache_mib=8) as store:
        store.api_keys.add(kept(KEY, "acme", "write"))
        ring = Registry(store, NO_LIMITS)
        ring.refresh()
        for file in tmp_path.glob("tables.db*"):
            file.unlink()
        if content is not None:
            path.write_bytes(content)

        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                ring.refresh()
            assert ring.find_key(KEY) is not None
        ring.note_uses()
        assert path.exists() == (content is not None)  # no empty database may take the place of a backup
        path.unlink(missing_ok=True)
        with SqliteStore(str(path), cache_mib=8):
            ring.refresh()

        assert ring.find_key(KEY) is None


async def test_a_key_is_revoked_in_time_while_readers_use_every_thread(app: App) -> None:
    busy = [asyncio.create_task(run_in_threadpool(time.sleep, 3.5)) for _ in range(60)]
    await asyncio.sleep(0.1)
    app.store.api_keys.revoke(KEY[:KEY_ID_LENGTH])
    await asyncio.sleep(2)

    assert_refused(await post(app, {"X-Write-Key": KEY}), 401, "credential-unknown")
    await asyncio.gather(*busy)


async def test_the_shutdown_does_not_wait_for_another_writer(server: Server, tmp_path: Path) -> None:
    add_keys(tmp_path / "penstock.db")
    with SqliteStore(str(tmp_path / "penstock.db")) as writer:
        async with opened(server, tmp_path, AUTH="keys") as app:
            assert (await post(app, {"X-Write-Key": KEY})).status_code == 202
            held = writer.transaction()
            held.__enter__()
            stack = ExitStack()
            watch = stack.enter_context(stopwatch())
        assert watch.seconds < 4
        stack.close()
        held.__exit__(None, None, None)


# -- open mode ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.com"])
def test_an_open_api_on_a_public_address_is_not_started_without_consent(tmp_path: Path, host: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "api"], cwd=tmp_path, env=environment(HOST=host), capture_output=True, text=True, timeout=20
    )

    assert done.returncode > 0
    [sentence] = done.stderr.strip().splitlines()
    assert "AUTH" in sentence and "ALLOW_OPEN_ACCESS" in sentence and host in sentence


@pytest.mark.parametrize("settings", [{"ALLOW_OPEN_ACCESS": "1"}, {"AUTH": "keys"}], ids=str)
def test_an_api_on_a_public_address_is_started_with_consent_or_with_keys(
    own_server: Server, tmp_path: Path, settings: dict[str, Any]
) -> None:
    with running(own_server, tmp_path / "data", HOST="0.0.0.0", **settings) as api:
        assert httpx.get(f"{api.url}/healthz").status_code == 200


async def test_in_open_mode_the_header_alone_names_the_tenant(server: Server, tmp_path: Path) -> None:
    async with opened(server, tmp_path) as app:
        answer = await post(app, {"X-Tenant-ID": "acme", "Authorization": "Bearer whatever"})

    assert answer.status_code == 202


async def test_no_more_tenants_are_created_per_second_than_allowed(server: Server, tmp_path: Path) -> None:
    async with opened(server, tmp_path, NEW_TENANTS_PER_SECOND=5) as app:
        await app.log.append("known", events(1))
        answers = [await post(app, {"X-Tenant-ID": f"new-{i}"}) for i in range(20)]
        created = {summary.tenant for summary in await app.log.summaries()} - {"known"}
        [first, *_] = sorted(created)
        known = [await post(app, {"X-Tenant-ID": tenant}) for tenant in ("known", first, "known")]
        reads = [await app.get("/api/events", tenant=f"nobody-{i}") for i in range(20)]
        refused = [answer for answer in answers if answer.status_code != 202]

        assert 5 <= len(created) <= 8
        assert len(refused) == 20 - len(created)
        for answer in refused:
            assert_refused(answer, 429, "too-many-new-tenants")
            assert (answer.json()["limit"], answer.headers["retry-after"]) == (5, "1")
        assert [answer.status_code for answer in known] == [202, 200, 200]
        assert {answer.status_code for answer in reads} == {200}
        assert {summary.tenant for summary in await app.log.summaries()} == created | {"known"}

        await asyncio.sleep(0.5)
        assert (await post(app, {"X-Tenant-ID": "later"})).status_code == 202


async def test_the_memory_of_known_tenants_is_bounded(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_tenants, "KNOWN_TENANTS", 10)
    bounded = new_tenants.NewTenants(log, 1_000)

    for i in range(100):
        await bounded.admit(f"tenant-{i}")

    assert len(bounded._known) == 10


async def test_with_keys_new_tenants_are_not_limited(server: Server, tmp_path: Path) -> None:
    secrets = [key_command(tmp_path, "create", f"tenant-{i}").stdout.strip() for i in range(3)]
    async with opened(server, tmp_path, AUTH="keys", NEW_TENANTS_PER_SECOND=1) as app:
        assert [(await post(app, {"X-Write-Key": secret})).status_code for secret in secrets] == [202] * 3
