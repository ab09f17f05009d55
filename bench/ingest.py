"""The figures of the ingest endpoint: single events and batches."""

from collections.abc import Callable
from typing import Any

from bench.report import Figure, ratio_of
from bench.system import Failed, System
from bench.workload import Kind

Say = Callable[[str], None]
CONNECTIONS = 64
BATCH_CONNECTIONS = 8
BATCH_EVENTS = 500


def single(say: Say, *, quick: bool) -> list[Figure]:
    """Single-event POSTs a second, beside Starlette with a constant answer.

    64 connections, 20 tenants, fsync on.
    """
    rounds, events = (2, 4_000) if quick else (7, 20_000)
    ours, references = [], []
    with System() as system:
        api, constant = system.start_api(), system.start_constant()
        for number in range(-1, rounds):  # round -1 warms up
            mine = post_singles(system, api, tenants=20, events=events, seed=f"single-{number}")
            other = post_singles(system, constant, tenants=20, events=events, seed=f"single-{number}")
            if number >= 0:
                ours.append(mine)
                references.append(other)
                say(f"single: {mine:,.0f} POSTs/s, a constant {other:,.0f}, ratio {mine / other:.2f}")
    return [ratio_of("single-event POSTs", ours, references, target=0.6, unit="/s")]


def post_singles(system: System, port: int, *, tenants: int, events: int, seed: str) -> float:
    """POSTs of one event each, a second."""
    plan = {"port": port, "tenants": tenants, "events": events, "size": 1, "connections": CONNECTIONS, "seed": seed}
    answer = system.ask("bench.load", **plan)
    return _checked(answer) / float(answer["seconds"])


def batch(say: Say, *, quick: bool) -> list[Figure]:
    """Events a second in POSTs of 500, beside a client of packed script calls.

    20 tenants; the client sends the script calls that the API sends.
    """
    rounds, events = (2, 20_000) if quick else (7, 100_000)
    ours, references = [], []
    with System() as system:
        api = system.start_api()
        for number in range(-1, rounds):
            mine = post_batches(system, api, tenants=20, events=events, seed=f"batch-{number}")
            other = send_bare(system, tenants=20, events=events, seed=f"bare-{number}", prefix="bare")
            if number >= 0:
                ours.append(mine)
                references.append(other)
                say(f"batch: {mine:,.0f} events/s, bare {other:,.0f}, ratio {mine / other:.2f}")
    return [ratio_of(f"batch POSTs of {BATCH_EVENTS}", ours, references, target=0.6, unit="events/s")]


def post_batches(
    system: System,
    port: int,
    *,
    tenants: int,
    events: int,
    seed: str,
    kind: Kind = "whole",
    size: int = BATCH_EVENTS,
    format: str = "native",
) -> float:
    """Events a second, posted in batches."""
    plan = {"port": port, "tenants": tenants, "events": events, "size": size, "connections": BATCH_CONNECTIONS}
    answer = system.ask("bench.load", **plan, seed=seed, kind=kind, format=format)
    return _checked(answer) / float(answer["seconds"])


def send_bare(
    system: System,
    *,
    tenants: int,
    events: int,
    seed: str,
    size: int = BATCH_EVENTS,
    prefix: str = "tenant",
    after: int = 0,
    kind: Kind = "whole",
    dedup_window_seconds: float = 86_400.0,
) -> float:
    """Events a second, appended by a client that does nothing else."""
    plan = {"socket": system.settings.socket_path, "tenants": tenants, "events": events, "size": size, "prefix": prefix}
    plan |= {"after": after, "kind": kind, "dedup_window_seconds": dedup_window_seconds}
    answer = system.ask("bench.bare_append", **plan, connections=BATCH_CONNECTIONS, seed=seed)
    return _checked(answer) / float(answer["seconds"])


def _checked(answer: dict[str, Any]) -> int:
    """The number of events; all of them must be accepted."""
    if answer["accepted"] != answer["events"]:
        raise Failed(f"not every event was accepted: {answer}")
    return int(answer["events"])
