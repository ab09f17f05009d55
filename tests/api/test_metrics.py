"""Metrics report every tenant, and need METRICS_TOKEN with AUTH=keys."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from api import metrics
from streams import control, keys_of
from tests.support.events import body
from tests.support.http import App, opened
from tests.support.servers import Server

pytestmark = pytest.mark.anyio

TOKEN = "only for who operates this"


@pytest.fixture
async def app(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[App]:
    monkeypatch.setattr(metrics, "MAX_AGE_SECONDS", 0.0)
    async with opened(server, tmp_path, EVENTS_PER_DAY=4) as app:
        yield app


def values_of(answer: httpx.Response) -> dict[tuple[str, ...], float]:
    """Every sample, by its name and labels."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_events_of_each_tenant_are_counted_by_outcome(app: App) -> None:
    for raw in (body(), body(), body(n=1), b"{}", b'{"session_id": 7}', *(body(event_id=f"e{number}") for number in range(5))):
        await app.post(raw)
    await app.post(body(), tenant="globex")

    values = values_of(await app.client.get("/metrics"))

    outcomes = ("accepted", "duplicate", "conflict", "rejected", "limited")
    assert [values["penstock_events_total", outcome, "acme"] for outcome in outcomes] == [4, 1, 1, 2, 2]
    assert [values["penstock_events_total", outcome, "globex"] for outcome in outcomes] == [1, 0, 0, 0, 0]


async def test_lag_quarantine_late_duplicates_and_stuck_tenants_are_reported(server: Server, app: App) -> None:
    await app.post(body())
    server.client.delete(*server.client.keys("*:dedup:*"))
    await app.post(body())
    before = values_of(await app.client.get("/metrics"))
    server.client.xadd(keys_of("acme").log, {"odd": "entry"}, id="3-0")
    await app.post(body(), tenant="globex")
    await app.project()
    after = values_of(await app.client.get("/metrics"))
    server.client.delete(keys_of("globex").log)
    await control.append(app.log.connection, "acme", control.Drop([3]))
    await app.project()
    lost = values_of(await app.client.get("/metrics"))

    assert (before["penstock_lag_records", "acme"], after["penstock_lag_records", "acme"]) == (2, 0)
    assert before["penstock_lag_seconds", "acme"] > 0 == after["penstock_lag_seconds", "acme"]
    assert after["penstock_late_duplicates_total", "acme"] == 1
    assert (after["penstock_quarantined_records", "acme"], after["penstock_dropped_records", "acme"]) == (1, 0)
    assert (lost["penstock_quarantined_records", "acme"], lost["penstock_dropped_records", "acme"]) == (0, 2)
    assert lost["penstock_erased_records", "acme"] == 0
    assert (after["penstock_stuck", "globex"], lost["penstock_stuck", "globex"], lost["penstock_stuck", "acme"]) == (0, 1, 0)


async def test_the_server_the_tables_and_the_process_are_reported(server: Server, app: App) -> None:
    server.client.config_set("maxmemory", 10**9)
    try:
        values = values_of(await app.client.get("/metrics"))
    finally:
        server.client.config_set("maxmemory", 0)

    assert values["penstock_server_memory_limit_bytes",] == 10**9
    assert 0 < values["penstock_server_memory_bytes",] < 10**9
    assert values["penstock_server_delayed_fsyncs_total",] >= 0
    assert values["penstock_tables_wal_bytes",] > 0
    assert values["penstock_waiting_bytes",] == 0
    assert values["process_resident_memory_bytes",] > 0


async def test_frequent_requests_get_the_same_page(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_AGE_SECONDS", 60.0)
    first = await app.client.get("/metrics")
    await app.post(body())

    pages = await asyncio.gather(*(app.client.get("/metrics") for _ in range(20)))

    assert {page.content for page in pages} == {first.content}


async def test_without_the_server_the_page_fails(own_server: Server, tmp_path: Path) -> None:
    async with opened(own_server, tmp_path, APPEND_TIMEOUT_SECONDS=0.3) as app:
        own_server.kill()

        answer = await app.client.get("/metrics")

    assert (answer.status_code, answer.json()["code"]) == (503, "log-unavailable")


@pytest.mark.parametrize(
    ("token", "authorization", "status", "code"),
    [
        ("", "Bearer anything", 403, "metrics-closed"),
        ("", None, 403, "metrics-closed"),
        (TOKEN, None, 401, "credential-missing"),
        (TOKEN, "Bearer another", 401, "credential-unknown"),
        (TOKEN, f"Bearer {TOKEN[:-1]}", 401, "credential-unknown"),
        (TOKEN, f"Bearer {TOKEN}", 200, None),
    ],
    ids=range(6),
)
async def test_with_keys_the_page_needs_its_own_token(
    server: Server, tmp_path: Path, token: str, authorization: str | None, status: int, code: str | None
) -> None:
    async with opened(server, tmp_path, AUTH="keys", METRICS_TOKEN=token) as app:
        answer = await app.client.get("/metrics", headers={"Authorization": authorization} if authorization else {})

    assert answer.status_code == status
    if code:
        assert answer.json()["code"] == code
