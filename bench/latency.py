"""The figure of the time from an event's 202 to its row."""

import json
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from bench.report import Figure
from bench.system import Failed, System

Say = Callable[[str], None]
Posted = Sequence[tuple[str, int, float, float]]
Moved = Sequence[tuple[str, int, float]]
RATE = 1_000
TENANTS = 1_000
MARGIN_SECONDS = 8.0


def latency(say: Say, *, quick: bool) -> list[Figure]:
    """Milliseconds from an event's 202 until its row is visible.

    1,000 events/s over 1,000 tenants, a new tenant each second, one API, one projector.
    """
    seconds = 5 if quick else 20
    with System() as system:
        database = system.folder / "latency.db"
        port = system.start_api(DATABASE_URL=f"sqlite:///{database}")
        projector = system.start_projector(database)
        plan: dict[str, Any] = {"port": port, "rate": RATE, "tenants": TENANTS, "begin": 0.0}
        system.ask("bench.pace", **plan, seconds=2, new_tenants=False, seed="warm")
        start = time.monotonic() + 1.5
        until = start + seconds + MARGIN_SECONDS
        watcher = system.start("bench.watch", json.dumps({"path": str(database), "until": until}), piped=True)
        posted = system.ask("bench.pace", **plan | {"begin": start}, seconds=seconds, new_tenants=True, seed="measured")
        assert watcher.stdout is not None
        moved = json.loads(watcher.stdout.read())
        system.stop(watcher)
        system.stop(projector)
    if len(posted) != seconds * RATE:
        raise Failed(f"{len(posted)} of {seconds * RATE} events were answered")
    all_ms, new_ms = (
        waits_ms(posted, moved),
        waits_ms([event for event in posted if event[0].startswith("new-") and event[1] == 1], moved),
    )
    remark = f"max {max(all_ms):.0f} ms; a tenant's first event: p50 {at(new_ms, 0.5):.0f}, max {max(new_ms):.0f} ms"
    say(f"latency: p50 {at(all_ms, 0.5):.1f} ms, p90 {at(all_ms, 0.9):.1f}, p99 {at(all_ms, 0.99):.1f}; {remark}")
    return [
        Figure("202 to row visible, p50 in ms", at(all_ms, 0.5), "at most", 25, form="{:.1f}"),
        Figure("202 to row visible, p99 in ms", at(all_ms, 0.99), "at most", 150, form="{:.1f}", remark=remark),
    ]


def waits_ms(posted: Posted, moved: Moved) -> list[float]:
    """Milliseconds from each 202 until its checkpoint was seen; sorted."""
    positions: defaultdict[str, list[int]] = defaultdict(list)
    times: defaultdict[str, list[float]] = defaultdict(list)
    for tenant, position, when in moved:
        positions[tenant].append(position)
        times[tenant].append(when)
    waits = []
    for tenant, position, when, _ in posted:
        index = bisect_left(positions[tenant], position)
        if index == len(positions[tenant]):
            raise Failed(f"the event at position {position} of {tenant} was not seen in the tables")
        waits.append(max(0.0, times[tenant][index] - when) * 1000)
    return sorted(waits)


def at(ordered: Sequence[float], share: float) -> float:
    """The value below which a share of the values lies."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
