"""Faults of processes: killed, paused, ended at a named point."""

import asyncio
import signal
import time
from contextlib import suppress

import pysqlite3
import redis

from tests.faults.fold import log_keys
from tests.faults.scene import Scene, write_lock
from tests.faults.system import LEASE_SECONDS, PROJECTORS, System

TAKEN_OVER_SECONDS = 2.5
TRIES = 80


async def kill(name: str, scene: Scene) -> None:
    """kill -9 of a process of the Procfile."""
    scene.system.kill(name)


async def kill_projectors(scene: Scene) -> None:
    """kill -9 of both projectors at once."""
    for name in PROJECTORS:
        scene.system.kill(name)


async def kill_redis(scene: Scene) -> None:
    """kill -9 of the server itself; `serve` starts it again."""
    if pid := scene.system.server_pid:
        scene.system.signal(pid, signal.SIGKILL)


async def pause(name: str, scene: Scene) -> None:
    """SIGSTOP for longer than the lease."""
    await scene.system.paused(scene.system.processes[name].pid, 1.5 * LEASE_SECONDS)


async def pause_redis(scene: Scene) -> None:
    """SIGSTOP of the server, sometimes for longer than an append may take."""
    if pid := scene.system.server_pid:
        await scene.system.paused(pid, scene.rng.uniform(0.3, 1.3))


async def pause_in_hand(scene: Scene) -> None:
    """SIGSTOP of a projector between read and commit.

    The test holds the write lock for a moment, so that the projector waits with its batch in hand.
    """
    name = scene.rng.choice(PROJECTORS)
    pid = scene.system.processes[name].pid
    delivered = None
    async with write_lock(scene.system):
        for _ in range(TRIES):
            delivered = await asyncio.to_thread(_in_hand, scene.system, pid)
            if delivered:
                await asyncio.sleep(0.02)
                scene.system.signal(pid, signal.SIGSTOP)
                break
            await asyncio.sleep(0.005)
    if delivered:
        scene.system.reached["in hand"] += 1
        deadline = time.monotonic() + TAKEN_OVER_SECONDS
        while not _is_applied(scene.system, *delivered) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        scene.system.signal(pid, signal.SIGCONT)


def _in_hand(system: System, pid: int) -> tuple[str, int] | None:
    """A tenant that a process leases, and a delivered position not applied."""
    with suppress(redis.RedisError):
        for tenant, key in log_keys(system.client).items():
            [*groups] = system.client.xinfo_groups(key)
            for group in groups:
                leases = key.partition(b":")[0] + b":leases:" + group["name"]
                lease_owner = system.client.hget(leases, tenant) or b""
                pending = system.client.xpending(key, group["name"])
                if f":{pid}:".encode() in lease_owner and pending["pending"]:
                    position = int(pending["max"].split(b"-")[0])
                    if not _is_applied(system, tenant, position):
                        return tenant, position
    return None


def _is_applied(system: System, tenant: str, position: int) -> bool:
    with system.snapshot() as connection:
        row = connection.execute("SELECT position FROM checkpoints WHERE tenant_id = ?", (tenant,)).fetchone()
    return bool(row and row[0] >= position)


async def pause_in_transaction(scene: Scene) -> None:
    """SIGSTOP of a projector that holds the write lock."""
    name = scene.rng.choice(PROJECTORS)
    for _ in range(TRIES):
        pid = scene.system.processes[name].pid
        scene.system.signal(pid, signal.SIGSTOP)
        try:
            if await asyncio.to_thread(_is_locked, scene.system):
                scene.system.reached["in transaction"] += 1
                await asyncio.sleep(2 * LEASE_SECONDS)
                return
        finally:
            scene.system.signal(pid, signal.SIGCONT)
        await asyncio.sleep(scene.rng.uniform(0.0005, 0.004))


def _is_locked(system: System) -> bool:
    """Whether a process holds the write lock for more than a moment."""
    connection = pysqlite3.connect(system.tables, timeout=0.05, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
        return False
    except pysqlite3.OperationalError:
        return True
    finally:
        connection.close()


# -- failpoints -------------------------------------------------------------------------------------------------------


async def die_at(name: str, point: str, last_pass: int, scene: Scene) -> None:
    """A process ends at a failpoint while the others go on."""
    await scene.system.dies_at(name, f"{point}:{scene.rng.randint(1, last_pass)}")


async def die_alone_at(point: str, last_pass: int, scene: Scene) -> None:
    """The only running projector ends at a failpoint; then both start."""
    dying, other = PROJECTORS
    await scene.system.stop(other)
    try:
        await scene.system.dies_at(dying, f"{point}:{scene.rng.randint(1, last_pass)}")
    finally:
        scene.system.launch(other)
        scene.system.release(other)
