"""A tenant is deleted under load, by a command that dies."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import redis

from tests.faults.clients import Client
from tests.faults.environment import Violation
from tests.faults.journal import Journal, Members, canary
from tests.faults.scene import Scene
from tests.faults.system import System
from tests.faults.tables import to_the_end

EVENTS = 300
LAST_PASS = 2


async def delete_tenant(scene: Scene) -> None:
    """A tenant is deleted by a second command, and is then refused."""
    tenant = f"deleted-{scene.rng.randrange(10**9)}"
    folder = scene.system.folder / tenant
    folder.mkdir()
    journal = Journal(folder)
    client = Client(scene.system.port, journal, scene.rng, scene.clients[0].maker, pause_seconds=0)
    client.allowed = client.allowed | {410}
    try:
        events = [event_of(tenant, number) for number in range(EVENTS)]
        await client.deliver(tenant, events, (json.dumps(events).encode(), ""), [])
        await scene.system.command("api", "tenant", "delete", tenant, "--yes", fault_at="during_deletion")
        await to_the_end(scene.system, "api", "tenant", "delete", tenant, "--yes")
        await asyncio.sleep(0.3)
        status, problem = await client._until_answered(
            f"POST /api/events HTTP/1.1\r\nhost: x\r\nx-tenant-id: {tenant}\r\ncontent-length: 2\r\n\r\n{{}}".encode()
        )
    finally:
        client.hang_up()
        journal.close()
    if (status, problem.get("code")) != (410, "tenant-deleted"):
        raise Violation(f"{tenant} was deleted, and is answered {status} {problem}")
    if remains := [*await scene.system.ask(lambda redis: list(keys_with(redis, tenant))), *rows_with(scene.system, tenant)]:
        raise Violation(f"{tenant} was deleted, and is still in {remains}")


def event_of(tenant: str, number: int) -> Members:
    """One event, of one of a few sessions."""
    own = {"session_id": f"S{number % 7}", "event_type": f"e{number}", "timestamp": "2026-03-01T00:00:00Z"}
    return own | {"canary": canary(tenant)}


def keys_with(client: redis.Redis, tenant: str) -> Iterator[bytes]:
    """Keys that name a tenant, or list it."""
    name = tenant.encode()
    for key in client.scan_iter(count=10_000):
        kind = client.type(key)
        members: Any = ()
        if kind == b"set":
            members = client.smembers(key)
        elif kind == b"zset":
            members = client.zrange(key, 0, -1)
        elif kind == b"hash":
            members = client.hkeys(key)
        if name in key or name in members:
            yield key


def rows_with(system: System, tenant: str) -> Iterator[str]:
    """Tables that have rows of a tenant."""
    with system.snapshot() as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
            columns = [column[1] for column in connection.execute(f"PRAGMA table_xinfo({table})")]
            if "tenant_id" in columns and connection.execute(f"SELECT 1 FROM {table} WHERE tenant_id = ?", (tenant,)).fetchone():
                yield table
