"""The figures of what one tenant's flood costs the others."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from bench.latency import at, waits_ms
from bench.report import Figure
from bench.system import Failed, System

Say = Callable[[str], None]
OFFERED, LIMIT = 5_000, 500  # events a second of the flooding tenant
RATE, TENANTS = 200, 20  # of the others
FLOOD = "flood-00000"
SETTLE_SECONDS = 1.5
MARGIN_SECONDS = 3.0


def flood(say: Say, *, quick: bool) -> list[Figure]:
    """p99 of other tenants' POSTs and rows, beside p99 without a flood.

    One tenant sends 5,000 events/s over 64 connections, with a limit of 500. Its client is niced, as if it ran elsewhere.
    """
    rounds, seconds = (2, 4) if quick else (5, 10)
    posts, rows = [], []
    with System() as system:
        database = system.folder / "flood.db"
        system.run("api", "tenant", "set", FLOOD, "--events-per-second", str(LIMIT), DATABASE_URL=f"sqlite:///{database}")
        port = system.start_api(DATABASE_URL=f"sqlite:///{database}")
        system.start_projector(database)
        _measure(system, port, database, seconds=2, seed="warm", flooded=True)
        for number in range(rounds):
            quiet = _measure(system, port, database, seconds=seconds, seed=f"quiet-{number}", flooded=False)
            loud = _measure(system, port, database, seconds=seconds, seed=f"loud-{number}", flooded=True)
            posts.append((loud[0], quiet[0]))
            rows.append((loud[1], quiet[1]))
            say(
                f"flood: p99 of a POST {loud[0]:.1f} ms, quiet {quiet[0]:.1f}; of a row visible {loud[1]:.1f} ms, quiet {quiet[1]:.1f}"
            )
    return [
        _figure("other tenants' POST, p99, flood beside quiet", posts),
        _figure("other tenants' row visible, p99, the same", rows),
    ]


def _figure(what: str, pairs: list[tuple[float, float]]) -> Figure:
    ratios = [loud / quiet for loud, quiet in pairs]
    return Figure(
        what,
        median(ratios),
        "at most",
        2.0,
        ours=median(loud for loud, _ in pairs),
        reference=median(quiet for _, quiet in pairs),
        unit="ms",
        spread=(min(ratios), max(ratios)),
    )


def _measure(system: System, port: int, database: Path, *, seconds: int, seed: str, flooded: bool) -> tuple[float, float]:
    """p99 in ms of other tenants' POSTs, and of their rows becoming visible."""
    plan: dict[str, Any] = {"port": port, "new_tenants": False, "begin": time.monotonic() + SETTLE_SECONDS, "seed": seed}
    flooding = None
    if flooded:
        overrides = {"rate": OFFERED, "tenants": 1, "prefix": "flood", "seconds": seconds, "brief": True, "nice": 10}
        flooding = system.start("bench.pace", json.dumps(plan | overrides), piped=True)
    watched = {"path": str(database), "until": plan["begin"] + seconds + MARGIN_SECONDS}
    watcher = system.start("bench.watch", json.dumps(watched), piped=True)
    posted = system.ask("bench.pace", **plan | {"rate": RATE, "tenants": TENANTS, "seconds": seconds})
    assert watcher.stdout is not None
    moved = json.loads(watcher.stdout.read())
    system.stop(watcher)
    if flooding is not None:
        assert flooding.stdout is not None
        accepted = json.loads(flooding.stdout.read())
        system.stop(flooding)
        if not 0.8 * LIMIT * seconds < accepted < LIMIT * (seconds + 2):
            raise Failed(f"{accepted} events of the flood were accepted in {seconds} s")
    if len(posted) != seconds * RATE:
        raise Failed(f"{len(posted)} of {seconds * RATE} events were answered")
    took = sorted((answered - due) * 1000 for *_, answered, due in posted)
    return at(took, 0.99), at(waits_ms(posted, moved), 0.99)
