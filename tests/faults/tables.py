"""Faults of the tables: killed rebuilds, rollbacks, an old database."""

import asyncio
import contextlib
import signal
import time

import pysqlite3

from tests.faults.data import lose_dedup_keys
from tests.faults.environment import Violation
from tests.faults.fold import log_keys
from tests.faults.journal import TENANTS
from tests.faults.scene import Scene, write_lock
from tests.faults.system import PROJECTORS, System

OVERTAKE_TRIES = 4
QUARANTINE_SECONDS = 2.0
DROP_TRIES = 4
SHADOW_IS_FILLED = (
    "SELECT 1 FROM sqlite_master WHERE type = 'index' AND name LIKE '%_by_session_%' AND tbl_name = 'events__shadow'"
)
REFUSED = ("Refused", "Traceback", "differences")


async def rebuild(scene: Scene, *options: str) -> None:
    """A rebuild under load, to its end."""
    await to_the_end(scene.system, "projector", "rebuild", *options)


async def rebuild_overtaken(scene: Scene) -> None:
    """A rebuild that is paused before its swap while projectors write."""
    for _ in range(OVERTAKE_TRIES):
        if await _overtake(scene):
            scene.system.reached["overtaken"] += 1
            return


async def _overtake(scene: Scene) -> bool:
    """Run a rebuild to its end; whether it was paused before its swap."""
    rebuilding = asyncio.create_task(to_the_end(scene.system, "projector", "rebuild"))
    filled, paused = False, 0
    while not (filled or rebuilding.done()):
        async with write_lock(scene.system) as connection:
            filled = bool(connection.execute(SHADOW_IS_FILLED).fetchone())
            if filled:
                await asyncio.sleep(0.04)  # until it waits for the lock, too
                paused = scene.system.commanding["projector", "rebuild"]
                scene.system.signal(paused, signal.SIGSTOP)
        await asyncio.sleep(0.001)
    if filled:
        await _written_on(scene.system)
        scene.system.signal(paused, signal.SIGCONT)
    await rebuilding
    return filled


async def _written_on(system: System) -> None:
    """Wait until a checkpoint has moved, or for half a second."""
    before, deadline = _checkpoints(system), time.monotonic() + 0.5
    while _checkpoints(system) == before and time.monotonic() < deadline:
        await asyncio.sleep(0.01)


def _checkpoints(system: System) -> int:
    with system.snapshot() as connection:
        [[total]] = connection.execute("SELECT coalesce(sum(position), 0) FROM checkpoints")
        return int(total)


async def rebuild_tenant(scene: Scene) -> None:
    """A rebuild of one tenant."""
    await rebuild(scene, "--tenant", scene.rng.choice(list(await scene.system.ask(log_keys)) or [TENANTS[0]]))


async def rebuild_killed(scene: Scene) -> None:
    """A rebuild, killed at any moment, then one to its end."""
    await scene.system.command("projector", "rebuild", kill_after=scene.rng.uniform(0.15, 0.5))
    await rebuild(scene)


async def rebuild_dies_at(point: str, last_pass: int, scene: Scene) -> None:
    """A rebuild that dies at a failpoint, then one to its end."""
    await scene.system.command("projector", "rebuild", fault_at=f"{point}:{scene.rng.randint(1, last_pass)}")
    await rebuild(scene)


async def roll_back(scene: Scene) -> None:
    """A rebuild and a rollback; sometimes a rollback that is killed first."""
    await rebuild(scene)
    if scene.rng.random() < 0.5:
        await scene.system.command("projector", "rollback", kill_after=scene.rng.uniform(0.15, 0.4))
        await rebuild(scene)
    await to_the_end(scene.system, "projector", "rollback")


async def vacuum_killed(scene: Scene) -> None:
    """A vacuum, killed at any moment, then one to its end."""
    await scene.system.command("projector", "vacuum", kill_after=scene.rng.uniform(0.3, 0.9))
    await to_the_end(scene.system, "projector", "vacuum")


async def vacuum_dies_at(point: str, scene: Scene) -> None:
    """A vacuum that dies at a failpoint, then one to its end."""
    await scene.system.command("projector", "vacuum", fault_at=point)
    await to_the_end(scene.system, "projector", "vacuum")


async def drop(scene: Scene) -> None:
    """A tenant's quarantine is dropped under load."""
    tenant = await _with_quarantine(scene)
    await to_the_end(scene.system, "projector", "quarantine", "drop", tenant, "--yes")


async def drop_dies_at(point: str, scene: Scene) -> None:
    """A drop that dies after its control record, then one to its end."""
    for _ in range(DROP_TRIES):
        tenant = await _with_quarantine(scene)
        status, _ = await scene.system.command("projector", "quarantine", "drop", tenant, "--yes", fault_at=point)
        if status == 137:
            break
    await to_the_end(scene.system, "projector", "quarantine", "drop", tenant, "--yes")


async def _with_quarantine(scene: Scene) -> str:
    """A tenant with records in quarantine; any tenant, if none has some.

    Without deduplication keys, events that are sent again with other content get there as conflicts.
    """
    await lose_dedup_keys(scene)
    deadline = time.monotonic() + QUARANTINE_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(pysqlite3.Error):
            with scene.system.snapshot() as connection:
                tenants = [
                    str(tenant) for (tenant,) in connection.execute("SELECT DISTINCT tenant_id FROM quarantine ORDER BY 1")
                ]
            if tenants:
                return scene.rng.choice(tenants)
        await asyncio.sleep(0.05)
    return scene.rng.choice(TENANTS)


async def to_the_end(system: System, *words: str) -> None:
    """Run a command until it succeeds. Raises Violation when it does not."""
    deadline = time.monotonic() + 40
    while True:
        status, output = await system.command(*words)
        if status == 0:
            return
        if status not in (1, 137) or any(word in output for word in REFUSED) or time.monotonic() > deadline:
            raise Violation(f"{' '.join(words)} ended with status {status}: {output}")


async def restore_yesterday(scene: Scene) -> None:
    """An older copy of the database is put back while no process uses it."""
    system = scene.system
    copy = system.folder / "yesterday.db"
    if not copy.exists():
        return
    names = ("api", *PROJECTORS)
    with scene.watcher.looking_away():
        await system.stop(*names)
        for suffix in ("", "-wal", "-shm"):
            system.tables.with_name(system.tables.name + suffix).unlink(missing_ok=True)
        system.tables.write_bytes(copy.read_bytes())
    for name in names:
        system.launch(name)
    system.release(*names)


def keep_for_tomorrow(system: System) -> None:
    """A copy of the database, as a backup makes it."""
    source = pysqlite3.connect(f"file:{system.tables}?mode=ro", uri=True)
    target = pysqlite3.connect(system.folder / "yesterday.db")
    source.backup(target)
    target.close()
    source.close()
