"""The figures of long logs: memory of the commands and of the server."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.archive import acknowledge
from bench.ingest import send_bare
from bench.report import Figure
from bench.system import Failed, System
from bench.workload import tenant_names

Say = Callable[[str], None]
TENANTS = 2  # a rebuild reads each in a process of its own
PIECE_EVENTS = 250_000  # the events that the loader holds at a time
LIMIT_MIB = 300
LOOK_SECONDS = 0.02
EXPIRY_SECONDS = 600.0
MIB = 1024 * 1024


def long(say: Say, *, quick: bool) -> list[Figure]:
    """Peak memory of commands over 5 million records, and the server's.

    A tenth of each log is on the server, the rest in segments. A command's memory is that of its process and its
    children, shared pages counted once. The server is measured after the deduplication window of a minute, beside a server that
    holds 600,000 records.
    """
    records, dedup_window_seconds = (200_000, 5.0) if quick else (5_000_000, 60.0)
    before, _ = _peaks(say, records // 10, dedup_window_seconds)
    after, kept_mib = _peaks(say, records, dedup_window_seconds)
    with System() as system:
        _fill(system, records * 12 // 100, dedup_window_seconds)
        hot_mib = _used_mib(system)
    what = f"server, MiB, {records // 10:,} hot of {records:,} beside {records * 12 // 100:,}"
    say(f"long: {what}: {kept_mib:.0f}, {hot_mib:.0f}")
    return [
        *(_figure(command, after[command], before[command]) for command in after),
        Figure(what, kept_mib / hot_mib, "at most", 1.0, ours=kept_mib, reference=hot_mib, unit="MiB"),
    ]


def _figure(command: str, peak_mib: float, before_mib: float) -> Figure:
    remark = f"{peak_mib / before_mib:.2f} of what a tenth takes, {before_mib:.0f} MiB"
    return Figure(f"{command}, peak MiB", peak_mib, "at most", LIMIT_MIB, form="{:.0f}", remark=remark)


def _peaks(say: Say, records: int, dedup_window_seconds: float) -> tuple[dict[str, float], float]:
    """The peak memory of each command, and the memory of the server, in MiB."""
    peaks: dict[str, float] = {}
    with System() as system:
        tenants = tenant_names(TENANTS)
        hot = {"HOT_SECONDS": "86400", "HOT_RECORDS": str(records // 10 // TENANTS)}
        database = {"DATABASE_URL": f"sqlite:///{system.folder / 'long.db'}"}
        _fill(system, records, dedup_window_seconds)
        acknowledge(system, tenants)

        def measure(name: str, module: str, *arguments: str, **environment: str) -> None:
            started = time.perf_counter()
            peak = peak_mib(system, module, *arguments, **environment)
            say(f"long: {records:,} records: {name}: {peak:.0f} MiB, {time.perf_counter() - started:.0f} s")
            peaks[name] = max(peak, peaks.get(name, 0.0))

        measure("archive", "streams", "archive", "--once", **hot)
        kept_mib = _used_mib(system)
        measure("verify of the logs", "streams", "verify")
        for tenant in tenants:
            out = system.folder / f"{tenant}.ndjson"
            measure("export", "streams", "export", tenant, "--out", str(out))
            out.unlink()
        measure("rebuild", "projector", "rebuild", **database)
        measure("verify of the tables", "projector", "verify", **database)
    return peaks, kept_mib


def _fill(system: System, records: int, dedup_window_seconds: float) -> None:
    """Append records over all tenants, in pieces that fit the loader's memory."""
    each = PIECE_EVENTS // TENANTS
    for after in range(0, records // TENANTS, each):
        count = min(each, records // TENANTS - after) * TENANTS
        send_bare(
            system,
            tenants=TENANTS,
            events=count,
            seed=f"long-{after}",
            after=after,
            kind="named",  # millions of the other kinds hold two with one identity
            dedup_window_seconds=dedup_window_seconds,
        )


def _used_mib(system: System) -> float:
    """The memory of the server without deduplication keys, in MiB."""
    system.wait_for(system.server, lambda: _expiring_keys(system) == 0, seconds=EXPIRY_SECONDS)
    return float(system.redis.info("memory")["used_memory"]) / MIB


def _expiring_keys(system: System) -> int:
    """The number of keys that expire."""
    return int(system.redis.info("keyspace").get("db0", {}).get("expires", 0))


def peak_mib(system: System, module: str, *arguments: str, **environment: str) -> float:
    """Run a command to its end; its peak memory in MiB. Raises Failed."""
    process = system.start(module, *arguments, piped=True, **environment)
    assert process.stdout is not None
    reader = threading.Thread(target=process.stdout.read)
    reader.start()
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(map(_held_bytes, _family(process.pid))))
        time.sleep(LOOK_SECONDS)
    reader.join()
    if process.returncode != 0:
        raise Failed(f"{module} {' '.join(arguments)}: status {process.returncode}\n{system.log_of(module)}")
    system.stop(process)
    return peak / MIB


def _family(pid: int) -> Iterator[int]:
    """A process and all its descendants."""
    yield pid
    try:
        children = [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]
    except OSError:  # it ended meanwhile
        return
    for child in children:
        yield from _family(child)


def _held_bytes(pid: int) -> int:
    """The proportional memory (PSS) of a process; 0 when it has ended."""
    try:
        line = re.search(r"^Pss: +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(line[1]) * 1024 if line else 0
