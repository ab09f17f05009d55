"""Faults of the server's data: lost keys and groups, refused commands."""

import asyncio
import json

import redis

from tests.faults.clients import Client
from tests.faults.fold import log_keys
from tests.faults.journal import LIMITED, TENANTS, canary
from tests.faults.scene import Scene
from tests.faults.system import PROJECTORS

BURST_EVENTS = 700


async def flush_scripts(scene: Scene) -> None:
    """SCRIPT FLUSH."""
    await scene.system.ask(lambda client: client.script_flush())


async def cut_connections(scene: Scene) -> None:
    """CLIENT KILL of every client, subscribers too."""
    await scene.system.ask(lambda client: [client.execute_command("CLIENT", "KILL", "TYPE", t) for t in ("normal", "pubsub")])


async def lose_ready_queues(scene: Scene) -> None:
    """The ready queues are lost."""
    await scene.system.ask(lambda client: _delete(client, "*:ready:*"))


async def lose_leases(scene: Scene) -> None:
    """The leases are lost while projectors work under them."""
    await scene.system.ask(lambda client: _delete(client, "*:leases:*"))


async def lose_groups_of_new_logs(scene: Scene) -> None:
    """The sets of groups that new logs get are lost, until the next sweep."""
    await scene.system.ask(lambda client: _delete(client, "*:groups"))


async def lose_dedup_keys(scene: Scene) -> None:
    """The deduplication window has passed for every event."""
    scene.journal.dedup_losses += 1
    await scene.system.ask(lambda client: _delete(client, "*:dedup:*"))


def _delete(client: redis.Redis, pattern: str) -> None:
    keys = list(client.scan_iter(match=pattern, count=10_000))
    for start in range(0, len(keys), 1_000):
        client.delete(*keys[start : start + 1_000])


async def destroy_groups(scene: Scene) -> None:
    """XGROUP DESTROY on every log."""
    await scene.system.ask(_destroy_groups)


def _destroy_groups(client: redis.Redis) -> None:
    for key in log_keys(client).values():
        for group in client.xinfo_groups(key):
            client.xgroup_destroy(key, group["name"])


async def destroy_groups_and_die(scene: Scene) -> None:
    """XGROUP DESTROY with a backlog; then a projector dies.

    It dies after it has read and before it applies.
    """
    dying, other = PROJECTORS
    await scene.system.stop(dying, other)
    try:
        await asyncio.sleep(0.1)
        await destroy_groups(scene)
        await scene.system.dies_at(dying, "after_read_before_apply")
    finally:
        scene.system.launch(other)
        scene.system.release(dying, other)


async def archive(point: str, scene: Scene) -> None:
    """Cold records are archived by an archiver that dies, then by another."""
    await scene.system.command("streams", "archive", "--once", fault_at=point)
    await scene.system.ask(lambda client: _delete(client, "*:archive-lease:*"))  # as its lease would end
    await scene.system.command("streams", "archive", "--once")


async def refuse_xadd(scene: Scene) -> None:
    """XADD is refused for a moment, in scripts too; every other command works."""
    for client in scene.clients:
        client.allowed = client.allowed | {500}
    await scene.system.ask(lambda client: client.execute_command("ACL", "SETUSER", "default", "-xadd"))
    await asyncio.sleep(0.2)
    await scene.system.ask(lambda client: client.execute_command("ACL", "SETUSER", "default", "+xadd"))


async def burst(scene: Scene) -> None:
    """A request that is larger than one script call and several batches."""
    client = Client(scene.clients[0].port, scene.journal, scene.rng, scene.clients[0].maker, pause_seconds=0)
    tenant, number = scene.rng.choice([tenant for tenant in TENANTS if tenant != LIMITED]), scene.rng.randrange(10**9)
    drop = {"session_id": f"S{number}", "timestamp": "2026-02-01T00:00:00Z", "canary": canary(tenant)}
    events = [drop | {"event_type": f"drop{i}"} for i in range(BURST_EVENTS)]
    try:
        await client.deliver(tenant, events, (json.dumps(events).encode(), ""), [])
    finally:
        client.hang_up()
