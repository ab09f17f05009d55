"""GET /metrics: what every tenant's log and tables say of themselves, for Prometheus. Any API process tells the same.

Nothing is counted here: what the door counted is kept beside the logs, so that figures outlive processes and add up.
"""

import asyncio
import hmac
import time
from collections.abc import Iterable, Iterator, Sequence

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from api.auth.credentials import credential_of
from api.health import parse_info
from api.http import Problem
from projector import FileStore, Store, TenantStatus, status
from streams import Log, Settings

FRESH_SECONDS = 1.0  # who asks more often gets the same again
OUTCOMES = ("accepted", "duplicate", "conflict", "rejected", "limited")


class Figures(msgspec.Struct, frozen=True):
    """What a page of metrics is made of: tenants, the server's INFO, bytes of the tables' WAL, bytes that wait here."""

    tenants: Sequence[TenantStatus]
    server: dict[str, str]
    wal_bytes: int
    waiting_bytes: int


class Metrics:
    """The page, made when it is asked for, by one request at a time."""

    def __init__(self, log: Log, store: Store) -> None:
        self._log = log
        self._store = store
        self._making = asyncio.Lock()
        self._made = float("-inf")
        self._page = b""

    async def page(self) -> bytes:
        """Metrics in Prometheus' text format. Raises LogUnavailable, StoreUnavailable."""
        async with self._making:
            if time.monotonic() - self._made > FRESH_SECONDS:
                tenants = await status(self._log, self._store, with_sessions=False)
                server = parse_info(await self._log.connection.call("INFO"))
                wal_bytes = self._store.wal_bytes if isinstance(self._store, FileStore) else 0
                figures = Figures(tenants, server, wal_bytes, self._log.waiting_bytes)
                self._page = await asyncio.to_thread(page_of, figures)
                self._made = time.monotonic()
            return self._page


async def get_metrics(request: Request) -> Response:
    """GET /metrics: see this file. It names every tenant, so with AUTH=keys it takes METRICS_TOKEN and no tenant's key."""
    settings: Settings = request.app.state.settings
    if settings.auth == "keys":
        _admit(credential_of(request.scope["headers"]), settings.metrics_token)
    return Response(await request.app.state.metrics.page(), media_type=CONTENT_TYPE_PLAIN_1_0_0)


def _admit(credential: str | None, token: str) -> None:
    if not token:
        raise Problem(403, "metrics-closed", "with AUTH=keys metrics are shown to who has METRICS_TOKEN, and none is set")
    if credential is None:
        raise Problem(401, "credential-missing", "METRICS_TOKEN is needed: Authorization: Bearer")
    if not hmac.compare_digest(credential.encode(), token.encode()):
        raise Problem(401, "credential-unknown", "this is not METRICS_TOKEN")


def page_of(figures: Figures) -> bytes:
    """Figures in Prometheus' text format, with those of this process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Families(figures))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        """What the registry asks for."""
        yield from _of_tenants(self._figures.tenants)
        yield from _of_server(self._figures.server)
        yield _gauge("penstock_tables_wal_bytes", "The write-ahead log of the tables' database.", self._figures.wal_bytes)
        yield _gauge("penstock_waiting_bytes", "Events that wait in this process to be appended.", self._figures.waiting_bytes)


def _of_tenants(tenants: Sequence[TenantStatus]) -> Iterator[Metric]:
    events = CounterMetricFamily("penstock_events", "Events by what the door answered.", labels=("tenant", "outcome"))
    late = CounterMetricFamily("penstock_late_duplicates", "Records whose event is at an earlier position.", labels=("tenant",))
    gauges = {
        "quarantined": GaugeMetricFamily("penstock_quarantined_records", "Records set aside.", labels=("tenant",)),
        "dropped": GaugeMetricFamily("penstock_dropped_records", "Records dropped, and notes that say so.", labels=("tenant",)),
        "erased": GaugeMetricFamily("penstock_erased_records", "Records of somebody who was forgotten.", labels=("tenant",)),
        "lag_records": GaugeMetricFamily("penstock_lag_records", "Records that no table has yet.", labels=("tenant",)),
        "lag_seconds": GaugeMetricFamily("penstock_lag_seconds", "Age of the oldest of these.", labels=("tenant",)),
    }
    stuck = GaugeMetricFamily("penstock_stuck", "1 when the tenant's tables cannot go on; status says why.", labels=("tenant",))
    for one in tenants:
        for outcome in OUTCOMES:
            events.add_metric((one.tenant, outcome), one.records if outcome == "accepted" else getattr(one, outcome))
        late.add_metric((one.tenant,), one.late_duplicates)
        for field, gauge in gauges.items():
            gauge.add_metric((one.tenant,), getattr(one, field))
        stuck.add_metric((one.tenant,), one.stuck is not None)
    yield from (events, late, *gauges.values(), stuck)


def _of_server(server: dict[str, str]) -> Iterator[Metric]:
    yield _gauge("penstock_server_memory_bytes", "Memory that the log's server uses.", int(server.get("used_memory", 0)))
    yield _gauge("penstock_server_memory_limit_bytes", "Its maxmemory; 0 is none.", int(server.get("maxmemory", 0)))
    delayed = int(server.get("aof_delayed_fsync", 0))
    yield CounterMetricFamily("penstock_server_delayed_fsyncs", "Writes that waited for a slow disk.", value=delayed)


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=value)
