"""GET /metrics: figures of all tenants, for Prometheus.

Every API process gives the same figures: the ingest endpoints count in the log's server, not in their process, so counts survive
a restart and add up over processes.
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
from streams import Log
from streams.runtime import Settings

MAX_AGE_SECONDS = 1.0  # requests in shorter intervals get the same page again
OUTCOMES = ("accepted", "duplicate", "conflict", "rejected", "limited")


class Figures(msgspec.Struct, frozen=True):
    """The input of a page of metrics.

    `server` is the server's INFO, `wal_bytes` the size of the tables' write-ahead log, `waiting_bytes` the events that wait in
    this process to be appended.
    """

    tenants: Sequence[TenantStatus]
    server: dict[str, str]
    wal_bytes: int
    waiting_bytes: int


class Metrics:
    """Makes the page of metrics when it is requested, once at a time."""

    def __init__(self, log: Log, store: Store) -> None:
        self._log = log
        self._store = store
        self._lock = asyncio.Lock()
        self._made_at = float("-inf")
        self._page = b""

    async def page(self) -> bytes:
        """The metrics in Prometheus' text format.

        Raises LogUnavailable, StoreUnavailable.
        """
        async with self._lock:
            if time.monotonic() - self._made_at > MAX_AGE_SECONDS:
                tenants = await status(self._log, self._store, with_sessions=False)
                server = parse_info(await self._log.connection.call("INFO"))
                wal_bytes = self._store.wal_bytes if isinstance(self._store, FileStore) else 0
                figures = Figures(tenants, server, wal_bytes, self._log.appender.waiting_bytes)
                self._page = await asyncio.to_thread(page_of, figures)
                self._made_at = time.monotonic()
            return self._page


async def get_metrics(request: Request) -> Response:
    """GET /metrics.

    The page names every tenant, so with AUTH=keys it needs METRICS_TOKEN; no tenant's key opens it.
    """
    settings: Settings = request.app.state.settings
    if settings.auth == "keys":
        _admit(credential_of(request.scope["headers"]), settings.metrics_token)
    return Response(await request.app.state.metrics.page(), media_type=CONTENT_TYPE_PLAIN_1_0_0)


def _admit(credential: str | None, token: str) -> None:
    if not token:
        raise Problem(403, "metrics-closed", "with AUTH=keys this page needs METRICS_TOKEN, and that is not set")
    if credential is None:
        raise Problem(401, "credential-missing", "send METRICS_TOKEN: Authorization: Bearer")
    if not hmac.compare_digest(credential.encode(), token.encode()):
        raise Problem(401, "credential-unknown", "this is not METRICS_TOKEN")


def page_of(figures: Figures) -> bytes:
    """Figures in Prometheus' text format, and figures of this process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Families(figures))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        """The metric families, when the registry collects them."""
        yield from _of_tenants(self._figures.tenants)
        yield from _of_server(self._figures.server)
        wal_bytes, waiting_bytes = self._figures.wal_bytes, self._figures.waiting_bytes
        yield GaugeMetricFamily("penstock_tables_wal_bytes", "Size of the tables' write-ahead log.", value=wal_bytes)
        yield GaugeMetricFamily("penstock_waiting_bytes", "Events that wait in this process to be appended.", value=waiting_bytes)


def _of_tenants(tenants: Sequence[TenantStatus]) -> Iterator[Metric]:
    events = CounterMetricFamily("penstock_events", "Events, by the status of their receipt.", labels=("tenant", "outcome"))
    late_duplicates = CounterMetricFamily(
        "penstock_late_duplicates", "Records that repeat an event of an earlier position.", labels=("tenant",)
    )
    gauges = {
        "quarantined": _tenant_gauge("penstock_quarantined_records", "Records that could not become rows, in quarantine."),
        "dropped": _tenant_gauge("penstock_dropped_records", "Records dropped from quarantine, and the records of the drops."),
        "erased": _tenant_gauge("penstock_erased_records", "Records of erased data subjects."),
        "lag_records": _tenant_gauge("penstock_lag_records", "Records that are not in the tables yet."),
        "lag_seconds": _tenant_gauge("penstock_lag_seconds", "Age of the oldest record that is not in the tables yet."),
    }
    stuck = _tenant_gauge("penstock_stuck", "1 if the tenant's tables are stuck; `projector status` says why.")
    for tenant in tenants:
        labels = (tenant.tenant,)
        for outcome in OUTCOMES:
            events.add_metric((*labels, outcome), tenant.records if outcome == "accepted" else getattr(tenant, outcome))
        late_duplicates.add_metric(labels, tenant.late_duplicates)
        for field, gauge in gauges.items():
            gauge.add_metric(labels, getattr(tenant, field))
        stuck.add_metric(labels, tenant.stuck is not None)
    yield from (events, late_duplicates, *gauges.values(), stuck)


def _of_server(server: dict[str, str]) -> Iterator[Metric]:
    used_bytes, limit_bytes = int(server.get("used_memory", 0)), int(server.get("maxmemory", 0))
    yield GaugeMetricFamily("penstock_server_memory_bytes", "Memory that the log's server uses.", value=used_bytes)
    yield GaugeMetricFamily("penstock_server_memory_limit_bytes", "Its maxmemory; 0 means no limit.", value=limit_bytes)
    delayed = int(server.get("aof_delayed_fsync", 0))
    yield CounterMetricFamily("penstock_server_delayed_fsyncs", "Its writes that waited for a slow disk.", value=delayed)


def _tenant_gauge(name: str, help_text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, help_text, labels=("tenant",))
