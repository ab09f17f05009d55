"""A process that posts single events at a steady rate, whatever the answers take, and notes what each waited for."""

import asyncio
import json
import os
import random
import sys
import time
from collections import deque
from typing import Any

import uvloop

from bench.load import Connection, connect, request_of
from bench.workload import bodies, tenant_names

CONNECTIONS = 64
GRACE_SECONDS = 2.0


async def post(plan: dict[str, Any], requests: list[tuple[str, bytes]]) -> list[tuple[str, int | None, float, float]]:
    """Of each event the tenant, the position, when it was answered, and when it was due to be sent."""
    dedup_keys: list[tuple[str, int | None, float, float]] = []
    waiting: deque[tuple[str, bytes, float]] = deque()
    busy: dict[Connection, tuple[str, float]] = {}

    def answered(connection: Connection, status: int, body: bytes) -> None:
        tenant, due = busy.pop(connection)
        dedup_keys.append((tenant, json.loads(body).get("position"), time.monotonic(), due))
        idle.append(connection)
        send()

    def send() -> None:
        while waiting and idle:
            connection = idle.pop()
            tenant, request, due = waiting.popleft()
            busy[connection] = tenant, due
            connection.post(request)

    idle = await connect(plan["port"], plan.get("connections", CONNECTIONS), answered)
    for i, (tenant, request) in enumerate(requests):
        due = plan["begin"] + i / plan["rate"]
        if (left := due - time.monotonic()) > 0:
            await asyncio.sleep(left)
        waiting.append((tenant, request, due))
        send()
    if plan.get("brief"):
        waiting.clear()  # what a flood could not send in its time
    await asyncio.sleep(GRACE_SECONDS)
    return dedup_keys


def make(plan: dict[str, Any]) -> list[tuple[str, bytes]]:
    """Requests to tenants at random; a second's first goes to a tenant that nobody has heard of."""
    chance = random.Random(plan["seed"])
    count = int(plan["seconds"] * plan["rate"])
    known = tenant_names(plan["tenants"], prefix=plan.get("prefix", "tenant"))
    new = tenant_names(count // plan["rate"] + 1, prefix="new")
    streams = {tenant: bodies(tenant, max(1_000, 2 * count // plan["tenants"]), seed=plan["seed"]) for tenant in known + new}
    requests = []
    for i in range(count):
        if plan["new_tenants"] and i % plan["rate"] == 0:
            known.append(new[i // plan["rate"]])
            tenant = known[-1]
        else:
            tenant = known[i] if i < plan["tenants"] and not plan["new_tenants"] else chance.choice(known)
        requests.append((tenant, request_of(tenant, [next(streams[tenant])])))
    return requests


def main() -> None:
    """Do what the plan in the first argument says, print what was seen; in brief, how many events were accepted."""
    plan = json.loads(sys.argv[1])
    os.nice(plan.get("nice", 0))
    requests = make(plan)
    plan["begin"] = max(plan["begin"], time.monotonic() + 0.1)
    dedup_keys = uvloop.run(post(plan, requests))
    print(json.dumps(sum(position is not None for _, position, *_ in dedup_keys) if plan.get("brief") else dedup_keys))


if __name__ == "__main__":
    main()
