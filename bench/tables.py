"""The figures of the projector: a backlog drained, and tables rebuilt."""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pysqlite3

from bench.ingest import send_bare
from bench.report import Figure, ratio_of
from bench.system import Failed, System
from bench.workload import tenant_names
from projector.live.worker import group_of
from projector.store.sqlite import SqliteStore
from streams import keys_of
from streams.keys import PARTITIONS, groups_key, leases_key, ready_key

Say = Callable[[str], None]
DRAIN_LIMIT_SECONDS = 300.0
POLL_SECONDS = 0.005


def drain(say: Say, *, quick: bool) -> list[Figure]:
    """Records a second of a projector's backlog, beside executemany.

    20 tenants; the same rows.
    """
    rounds, records = (2, 60_000) if quick else (5, 500_000)
    ours, references = [], []
    with System() as system:
        send_bare(system, tenants=20, events=records, seed="drain")
        for number in range(rounds):
            database = system.folder / f"drain-{number}.db"
            mine = drain_once(system, database, tenants=20)
            remove(database)
            other = insert_bare(system, database, tenants=20, records=records, seed="drain")
            remove(database)
            ours.append(mine)
            references.append(other)
            say(f"drain: {mine:,.0f} records/s, bare {other:,.0f}, ratio {mine / other:.2f}")
    return [ratio_of("projector, a backlog", ours, references, target=0.6, unit="records/s")]


def rebuild(say: Say, *, quick: bool) -> list[Figure]:
    """Records a second of a rebuild, beside a bare executemany.

    The tables are level with the log; the same rows.
    """
    rounds, records = (2, 60_000) if quick else (5, 500_000)
    ours, references = [], []
    with System() as system:
        send_bare(system, tenants=20, events=records, seed="rebuild")
        level, database = system.folder / "level.db", system.folder / "round.db"
        drain_once(system, level, tenants=20)
        for _ in range(rounds):
            mine = rebuild_once(system, level, database)
            other = insert_bare(system, database, tenants=20, records=records, seed="rebuild")
            remove(database)
            ours.append(mine)
            references.append(other)
            say(f"rebuild: {mine:,.0f} records/s, bare {other:,.0f}, ratio {mine / other:.2f}")
    return [ratio_of("rebuild", ours, references, target=1.0, unit="records/s")]


def drain_once(system: System, database: Path, *, tenants: int) -> float:
    """Records a second of a projector, from its first commit to its last.

    It starts like a projector that was stopped for a while: its group exists since the first events of the tenants.
    """
    register_group(system, database, tenants)
    goal = last_positions(system, tenants)
    with reading(database) as positions:
        before = positions()
        projector = system.start_projector(database)
        try:
            system.wait_for(projector, lambda: positions() > before)
            first, started = positions(), time.perf_counter()
            applied = first
            deadline = started + DRAIN_LIMIT_SECONDS
            while applied < goal:
                if projector.poll() is not None or time.perf_counter() > deadline:
                    raise Failed(f"{applied} of {goal} records were applied\n{system.log_of('projector')}")
                time.sleep(POLL_SECONDS)
                applied = positions()
            seconds = time.perf_counter() - started
        finally:
            system.stop(projector)
    destroy_group(system, database, tenants)
    return (applied - first) / seconds


def rebuild_once(system: System, level: Path, database: Path) -> float:
    """Records a second of a rebuild over a copy of a database."""
    shutil.copyfile(level, database)
    os.sync()  # or the rebuild would write the copy to disk, too
    output = system.run("projector", "rebuild", DATABASE_URL=f"sqlite:///{database}")
    remove(database)
    report = re.search(r"(\d+) records in ([\d.]+) s \(([\d,]+) records/s\)", output)
    if not report:
        raise Failed(output)
    return float(report[3].replace(",", ""))


def insert_bare(system: System, database: Path, *, tenants: int, records: int, seed: str, after: int = 0) -> float:
    """Records a second of a process that only inserts rows made beforehand."""
    answer = system.ask("bench.bare_insert", path=str(database), tenants=tenants, records=records, seed=seed, after=after)
    return float(answer["records"] / answer["seconds"])


def register_group(system: System, database: Path, tenants: int) -> None:
    """Make the tables, and their group as an API does; every tenant is due."""
    with SqliteStore(str(database)) as store:
        group, checkpoints = group_of(store), store.tables().checkpoints()
    pipeline = system.redis.pipeline(transaction=False)
    for tenant in tenant_names(tenants):
        keys = keys_of(tenant)
        after = checkpoints[tenant].position if tenant in checkpoints else 0
        pipeline.xgroup_create(keys.log, group, f"{after}-0")
        pipeline.sadd(keys.groups, group)
        pipeline.zadd(ready_key(keys.partition, group), {tenant: time.time() * 1000})
    pipeline.execute()


def destroy_group(system: System, database: Path, tenants: int) -> None:
    """Destroy a group, so that the next round does not serve it."""
    with SqliteStore(str(database)) as store:
        group = group_of(store)
    pipeline = system.redis.pipeline(transaction=False)
    for tenant in tenant_names(tenants):
        pipeline.xgroup_destroy(keys_of(tenant).log, group)
    for partition in range(PARTITIONS):
        pipeline.srem(groups_key(partition), group)
        pipeline.delete(ready_key(partition, group), leases_key(partition, group))
    pipeline.execute()


@contextmanager
def reading(database: Path) -> Iterator[Callable[[], int]]:
    """A function that counts the applied records of a database."""
    connection = pysqlite3.connect(f"file:{database}?mode=ro", uri=True, isolation_level=None)
    version = total = -1

    def positions() -> int:
        nonlocal version, total
        [now] = connection.execute("PRAGMA data_version").fetchone()
        if now != version:
            [total] = connection.execute("SELECT coalesce(sum(position), 0) FROM checkpoints").fetchone()
            version = now
        return total

    try:
        yield positions
    finally:
        connection.close()


def remove(database: Path) -> None:
    """Delete a database and the files beside it."""
    for path in database.parent.glob(f"{database.name}*"):
        path.unlink()


def last_positions(system: System, tenants: int) -> int:
    """The sum of the tenants' last positions."""
    pipeline = system.redis.pipeline(transaction=False)
    for tenant in tenant_names(tenants):
        pipeline.xinfo_stream(keys_of(tenant).log)
    return sum(int(info["last-generated-id"].partition(b"-")[0]) for info in pipeline.execute())
