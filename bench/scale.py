"""The figures of scale: rates by number of tenants and of rows."""

import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.ingest import BATCH_EVENTS, post_batches, post_singles, send_bare
from bench.report import Figure, ratio_of
from bench.system import System
from bench.tables import drain_once, insert_bare, rebuild_once, remove
from bench.workload import tenant_names
from streams import keys_of

Say = Callable[[str], None]
Rates = dict[int, list[float]]
COUNTS = (1, 20, 5_000)
TARGET = 0.7


def scale(say: Say, *, quick: bool) -> list[Figure]:
    """All rates at 1 and 5,000 tenants, beside those at 20.

    Also the projector's rate into 10 million rows, beside empty tables.
    """
    return _api(say, quick) + _projector(say, quick) + _full_tables(say, quick)


def _api(say: Say, quick: bool) -> list[Figure]:
    rounds, singles, batched = (2, 4_000, 20_000) if quick else (5, 20_000, 100_000)
    single: Rates = {count: [] for count in COUNTS}
    batch: Rates = {count: [] for count in COUNTS}
    with System() as system:
        api = system.start_api()
        for number in range(-1, rounds):
            for count in COUNTS:
                posts = post_singles(system, api, tenants=count, events=singles, seed=f"single-{count}-{number}")
                batched_events = post_batches(system, api, tenants=count, events=batched, seed=f"batch-{count}-{number}")
                if number >= 0:
                    single[count].append(posts)
                    batch[count].append(batched_events)
                    say(f"scale: {count} tenants: {posts:,.0f} POSTs/s, {batched_events:,.0f} events/s in batches")
    return _beside_20("single-event POSTs", single, "/s") + _beside_20("batch POSTs", batch, "events/s")


def _projector(say: Say, quick: bool) -> list[Figure]:
    rounds, records = (2, 50_000) if quick else (5, 200_000)
    drained: Rates = {count: [] for count in COUNTS}
    rebuilt: Rates = {count: [] for count in COUNTS}
    with ExitStack() as stack:
        systems = {count: stack.enter_context(System()) for count in COUNTS}
        for count, system in systems.items():
            size = min(BATCH_EVENTS, records // count)
            send_bare(system, tenants=count, events=records, seed="scale", size=size)
        for _ in range(rounds):
            for count, system in systems.items():
                level, database = system.folder / "level.db", system.folder / "round.db"
                drained[count].append(drain_once(system, level, tenants=count))
                rebuilt[count].append(rebuild_once(system, level, database))
                remove(level)
                say(f"scale: {count} tenants: {drained[count][-1]:,.0f} records/s drained, {rebuilt[count][-1]:,.0f} rebuilt")
    return _beside_20("projector, a backlog", drained, "records/s") + _beside_20("rebuild", rebuilt, "records/s")


def _beside_20(what: str, rates: Rates, unit: str) -> list[Figure]:
    return [
        ratio_of(f"{what}, {count:,} tenants beside 20", rates[count], rates[20], target=TARGET, unit=unit)
        for count in COUNTS
        if count != 20
    ]


def _full_tables(say: Say, quick: bool) -> list[Figure]:
    """Records a second into empty and full tables, projected and bare."""
    rounds, records, rows = (2, 40_000, 400_000) if quick else (5, 200_000, 10_000_000)
    with ExitStack() as stack:
        empty, full = stack.enter_context(System()), stack.enter_context(System())
        databases = [system.folder / name for system in (empty, full) for name in ("drained.db", "bare.db")]
        _fill(full, databases[2:], rows, say)
        _continue_after(full, rows // 20)
        rates: list[list[float]] = [[], [], [], []]
        for number in range(rounds):
            for i, (system, start) in enumerate(((empty, 0), (full, rows // 20))):
                seed, after = f"stretch-{number}", start + number * records // 20
                send_bare(system, tenants=20, events=records, seed=seed, after=after)
                rates[2 * i].append(drain_once(system, databases[2 * i], tenants=20))
                rates[2 * i + 1].append(
                    insert_bare(system, databases[2 * i + 1], tenants=20, records=records, seed=seed, after=after)
                )
            into_empty, bare_empty, into_full, bare_full = (rate[-1] for rate in rates)
            say(
                f"scale: into empty tables {into_empty:,.0f} records/s, bare {bare_empty:,.0f}; "
                f"into {rows:,} rows {into_full:,.0f}, bare {bare_full:,.0f}"
            )
    what = f"into {rows:,} rows beside empty tables"
    return [
        ratio_of(f"projector, {what}", rates[2], rates[0], target=TARGET, unit="records/s"),
        ratio_of(f"executemany, {what}", rates[3], rates[1], target=TARGET, unit="records/s", remark="the part of SQLite"),
    ]


def _fill(system: System, databases: Sequence[Path], rows: int, say: Say) -> None:
    say(f"scale: writing {rows:,} rows")
    plan = {"path": str(databases[0]), "tenants": 20, "records": rows, "seed": "old"}
    size = system.ask("bench.bare_insert", **plan)["bytes"]
    shutil.copyfile(databases[0], databases[1])
    say(f"scale: tables of {size / 1e9:.1f} GB")


def _continue_after(system: System, position: int) -> None:
    """Make empty logs continue after a position."""
    for tenant in tenant_names(20):
        system.redis.xadd(keys_of(tenant).log, {"event": "{}"}, id=f"{position}-0")
        system.redis.xdel(keys_of(tenant).log, f"{position}-0")
