"""The figures of the archive: speed, size, and POSTs meanwhile."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from bench.ingest import BATCH_EVENTS, send_bare
from bench.latency import at
from bench.report import Figure, ratio_of
from bench.system import Failed, System
from bench.tables import drain_once, rebuild_once
from bench.workload import tenant_names
from streams import keys_of

Say = Callable[[str], None]
GROUP = "bench"
SEGMENT_RECORDS = 100_000
RATE, TENANTS = 200, 20  # of the POSTs while records leave the server
SETTLE_SECONDS = 1.5
ARCHIVER_START_SECONDS = 1.0


def archive(say: Say, *, quick: bool) -> list[Figure]:
    """Records a second archived, beside a projector that drains them.

    20 tenants; from the start of the command to its end.
    """
    rounds, records = (2, 60_000) if quick else (5, 500_000)
    ours, references = [], []
    for number in range(rounds):
        with System() as system:
            send_bare(system, tenants=20, events=records, seed=f"archive-{number}")
            drained = drain_once(system, system.folder / "drained.db", tenants=20)
            archived = archive_once(system, tenant_names(20), records - 20)
        ours.append(archived)
        references.append(drained)
        say(f"archive: {archived:,.0f} records/s, drained {drained:,.0f}, ratio {archived / drained:.2f}")
    return [ratio_of("archive --once, beside a projector", ours, references, target=1.0, unit="records/s")]


def segment(say: Say, *, quick: bool) -> list[Figure]:
    """Bytes a record in a segment of 100,000 records.

    Each has a random event_id, and one of a hundred random sessions at a time.
    """
    sizes = []
    for number in range(1 if quick else 5):
        with System() as system:
            send_bare(system, tenants=1, events=SEGMENT_RECORDS + BATCH_EVENTS, seed=f"segment-{number}", kind="named")
            archive_once(system, tenant_names(1), SEGMENT_RECORDS + BATCH_EVENTS - 1)
            first = segments_of(system, tenant_names(1)[0])[0]
        sizes.append(first["size_bytes"] / SEGMENT_RECORDS)
        say(f"segment: {sizes[-1]:.1f} bytes a record; in the log {first['body_bytes'] / SEGMENT_RECORDS:.0f}")
    remark = f"the event itself: {first['body_bytes'] / SEGMENT_RECORDS:.0f}"
    spread = (min(sizes), max(sizes))
    return [Figure("segment, bytes a record", median(sizes), "at most", 60, form="{:.1f}", spread=spread, remark=remark)]


def reread(say: Say, *, quick: bool) -> list[Figure]:
    """Records a second of a rebuild from segments, beside one from the server."""
    rounds, records = (2, 60_000) if quick else (5, 500_000)
    ours, references = [], []
    with ExitStack() as stack:
        archived, live = stack.enter_context(System()), stack.enter_context(System())
        for system in (archived, live):
            send_bare(system, tenants=20, events=records, seed="reread")
            drain_once(system, system.folder / "level.db", tenants=20)
        archive_once(archived, tenant_names(20), records - 20)
        for _ in range(rounds):
            mine, other = (
                rebuild_once(system, system.folder / "level.db", system.folder / "round.db") for system in (archived, live)
            )
            ours.append(mine)
            references.append(other)
            say(f"reread: {mine:,.0f} records/s from segments, {other:,.0f} from the server, ratio {mine / other:.2f}")
    return [ratio_of("rebuild from segments, beside from the server", ours, references, target=1.0, unit="records/s")]


def leaving(say: Say, *, quick: bool) -> list[Figure]:
    """p99 of POSTs while an archiver runs, beside p99 without one.

    200 POSTs a second over 20 tenants; the archiver moves records of other tenants.
    """
    rounds, seconds, records = (2, 2, 400_000) if quick else (5, 5, 1_000_000)
    pairs = []
    with System() as system:
        port = system.start_api()
        _posted(system, port, seconds=2, seed="warm")
        for number in range(rounds):
            send_bare(system, tenants=20, events=records, seed=f"leaving-{number}", prefix=f"cold{number}")
            acknowledge(system, tenant_names(20, prefix=f"cold{number}"))
            quiet = _posted(system, port, seconds=seconds, seed=f"quiet-{number}")
            loud = _posted(system, port, seconds=seconds, seed=f"loud-{number}", archiving=True)
            pairs.append((loud, quiet))
            say(f"leaving: p99 of a POST {loud:.1f} ms, quiet {quiet:.1f}, ratio {loud / quiet:.2f}")
    ratios = [loud / quiet for loud, quiet in pairs]
    return [
        Figure(
            "POST, p99, archiving beside quiet",
            median(ratios),
            "at most",
            2.0,
            ours=median(loud for loud, _ in pairs),
            reference=median(quiet for _, quiet in pairs),
            unit="ms",
            spread=(min(ratios), max(ratios)),
        )
    ]


def _posted(system: System, port: int, *, seconds: int, seed: str, archiving: bool = False) -> float:
    """p99 in ms of POSTs at a steady rate, with or without an archiver."""
    start = time.monotonic() + SETTLE_SECONDS
    plan = {
        "port": port,
        "rate": RATE,
        "tenants": TENANTS,
        "seconds": seconds,
        "new_tenants": False,
        "begin": start,
        "seed": seed,
    }
    posting = system.start("bench.pace", json.dumps(plan), piped=True)
    assert posting.stdout is not None
    if archiving:
        time.sleep(max(0.0, start - ARCHIVER_START_SECONDS - time.monotonic()))
        system.run("streams", "archive", "--once", HOT_SECONDS="0")
        if time.monotonic() < start + seconds:
            raise Failed(f"all cold records had left the server before {seconds} s had passed")
    posted = json.loads(posting.stdout.read())
    system.stop(posting)
    if len(posted) != seconds * RATE:
        raise Failed(f"{len(posted)} of {seconds * RATE} events were answered")
    return at(sorted((answered - due) * 1000 for *_, answered, due in posted), 0.99)


# -- steps of the figures -------------------------------------------------------------------------------------------------


def acknowledge(system: System, tenants: Sequence[str]) -> None:
    """Make a group that has acknowledged all records of these tenants."""
    pipeline = system.redis.pipeline(transaction=False)
    for tenant in tenants:
        pipeline.xgroup_create(keys_of(tenant).log, GROUP, "$")
    pipeline.execute()


def archive_once(system: System, tenants: Sequence[str], expected: int, **environment: str) -> float:
    """Records a second of `streams archive --once`, from its start to its end."""
    acknowledge(system, tenants)
    started = time.perf_counter()
    output = system.run("streams", "archive", "--once", **{"HOT_SECONDS": "0", **environment})
    seconds = time.perf_counter() - started
    if f"archived {expected} records; {expected} left the server" not in output:
        raise Failed(output)
    return expected / seconds


def segments_of(system: System, tenant: str) -> list[dict[str, Any]]:
    """A tenant's segments, as its manifest names them."""
    manifest = Path(system.settings.data_dir, "archive", f"tenant={tenant}", "manifest.json")
    return list(json.loads(manifest.read_text())["segments"])
