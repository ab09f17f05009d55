"""The figures of use: server memory an event, an idle projector."""

import time
from collections.abc import Callable
from statistics import median

from bench.ingest import post_batches, send_bare
from bench.report import Figure
from bench.system import System, cpu_seconds
from bench.tables import drain_once, register_group
from bench.workload import bodies
from streams import parse_event

Say = Callable[[str], None]


def memory(say: Say, *, quick: bool) -> list[Figure]:
    """Bytes of server memory an event, with its deduplication key.

    The stored JSON of an event has about 150 bytes; 20 tenants.
    """
    events = 20_000 if quick else 200_000
    with System() as system:
        api = system.start_api()
        post_batches(system, api, tenants=20, events=10_000, seed="warm", kind="short")
        before = int(system.redis.info("memory")["used_memory"])
        post_batches(system, api, tenants=20, events=events, seed="memory", kind="short")
        after = int(system.redis.info("memory")["used_memory"])
    size = sum(len(parse_event(body).body) for body in bodies("tenant", 10_000, seed="memory", kind="short")) / 10_000
    each = (after - before) / events
    say(f"memory: {each:.0f} bytes an event of {size:.0f} bytes")
    return [Figure("server memory an event, bytes", each, "at most", 330, form="{:.0f}", remark=f"the event itself: {size:.0f}")]


def idle(say: Say, *, quick: bool) -> list[Figure]:
    """The share of a core that a projector uses while 5,000 tenants are idle."""
    tenants, interval_seconds, rounds = (500, 6.0, 2) if quick else (5_000, 20.0, 5)
    shares, server_shares = [], []
    with System() as system:
        send_bare(system, tenants=tenants, events=tenants * 2, size=2, seed="idle")
        database = system.folder / "idle.db"
        drain_once(system, database, tenants=tenants)
        register_group(system, database, tenants)
        projector = system.start_projector(database)
        server = int(system.redis.info("server")["process_id"])
        time.sleep(interval_seconds / 2)
        for _ in range(rounds):
            before, server_before = cpu_seconds(projector.pid), cpu_seconds(server)
            time.sleep(interval_seconds)
            shares.append((cpu_seconds(projector.pid) - before) / interval_seconds * 100)
            server_shares.append((cpu_seconds(server) - server_before) / interval_seconds * 100)
            say(f"idle: {shares[-1]:.2f} % of a core, the server {server_shares[-1]:.2f} %")
    remark = f"the server meanwhile: {median(server_shares):.2f} %"
    spread = (min(shares), max(shares))
    return [
        Figure(
            f"projector, {tenants:,} idle tenants, % of a core",
            median(shares),
            "at most",
            2,
            spread=spread,
            remark=remark,
        )
    ]
