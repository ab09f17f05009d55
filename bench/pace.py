"""A process that posts at a steady rate, and notes each answer's time."""

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
    """The tenant, position, time of answer and due time of each event."""
    answers: list[tuple[str, int | None, float, float]] = []
    waiting: deque[tuple[str, bytes, float]] = deque()
    busy: dict[Connection, tuple[str, float]] = {}

    def answered(connection: Connection, status: int, body: bytes) -> None:
        tenant, due = busy.pop(connection)
        answers.append((tenant, json.loads(body).get("position"), time.monotonic(), due))
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
        if (wait_seconds := due - time.monotonic()) > 0:
            await asyncio.sleep(wait_seconds)
        waiting.append((tenant, request, due))
        send()
    if plan.get("brief"):
        waiting.clear()  # requests that a flood could not send in its time
    await asyncio.sleep(GRACE_SECONDS)
    return answers


def make(plan: dict[str, Any]) -> list[tuple[str, bytes]]:
    """Requests to random tenants; the first of a second is to a new one."""
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
    """Carry out the plan in the first argument; print the answers."""
    plan = json.loads(sys.argv[1])
    os.nice(plan.get("nice", 0))
    requests = make(plan)
    plan["begin"] = max(plan["begin"], time.monotonic() + 0.1)
    answers = uvloop.run(post(plan, requests))
    print(json.dumps(sum(position is not None for _, position, *_ in answers) if plan.get("brief") else answers))


if __name__ == "__main__":
    main()
