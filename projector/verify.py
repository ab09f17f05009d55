"""Verify: the log replayed into scratch tables, and compared row by row with the live ones. It writes nothing to them."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from projector.guard import LogBehind
from projector.replay import Span, replay
from projector.sqlite import SqliteStore
from projector.tables import NOTHING, Checkpoint, Tables
from streams import Log

ORDER = {"events": "position", "event_sessions": "first_position", "quarantine": "position", "checkpoints": "position"}


async def verify(log: Log, store: SqliteStore) -> AsyncIterator[str]:
    """What differs between the tables and the log, one sentence each; nothing when they are equal.

    The log is replayed before the snapshot of the tables is taken, and only the rest within it: the snapshot, which
    makes the WAL grow while it lasts, is as short as the comparison.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-verify-") as folder:
        with SqliteStore(str(Path(folder, "replayed.db"))) as scratch:
            with store.snapshot() as now:
                behind = {tenant: checkpoint.position for tenant, checkpoint in now.checkpoints().items()}
            await _replay(log, scratch, behind)
            with store.snapshot() as live:
                checkpoints = live.checkpoints()
                await _replay(log, scratch, {tenant: at.position for tenant, at in checkpoints.items()})
                replayed = scratch.tables()
                for tenant, checkpoint in checkpoints.items():
                    reached = replayed.checkpoint(tenant).position
                    if reached < checkpoint.position:
                        yield str(LogBehind(tenant, reached, checkpoint.position))
                    for difference in _compare(tenant, live, replayed):
                        yield difference
                    for difference in _ledger(tenant, live, checkpoint):
                        yield difference


async def _replay(log: Log, scratch: SqliteStore, goals: dict[str, int]) -> None:
    known = scratch.tables().checkpoints()
    spans = []
    for survey in await log.survey():
        after, through = known.get(survey.tenant, NOTHING).position, min(goals.get(survey.tenant, 0), survey.last)
        if after < through:
            spans.append(Span(survey.tenant, after, through))
    async for chunk in replay(log, spans, scratch.replay_folder, accept_loss=True):
        scratch.write(scratch.tables(), chunk)


def _compare(tenant: str, live: Tables, replayed: Tables) -> Iterator[str]:
    """The differences between two sets' rows of a tenant, found in one pass over both."""
    for table, key in ORDER.items():
        ours, theirs = live.rows(table, tenant, key), replayed.rows(table, tenant, key)
        mine, other = next(ours, None), next(theirs, None)
        while mine is not None or other is not None:
            if other is None or (mine is not None and mine[key] < other[key]):
                yield f"{table} of {tenant}: {key} {mine[key]} is in the tables, not in the log"  # type: ignore[index]
                mine = next(ours, None)
            elif mine is None or other[key] < mine[key]:
                yield f"{table} of {tenant}: {key} {other[key]} is in the log, not in the tables"
                other = next(theirs, None)
            else:
                if mine != other:
                    yield f"{table} of {tenant}: {key} {mine[key]} differs: {_difference(mine, other)}"
                mine, other = next(ours, None), next(theirs, None)


def _ledger(tenant: str, live: Tables, checkpoint: Checkpoint) -> Iterator[str]:
    """The sum that does not hold, if it does not: each position up to the checkpoint is in one table, or counted, once."""
    parts = {
        "rows": live.count("events", tenant),
        "late duplicates": checkpoint.late_duplicates,
        "quarantined": live.count("quarantine", tenant),
        "dropped": checkpoint.dropped,
        "erased": checkpoint.erased,
    }
    if sum(parts.values()) != checkpoint.position:
        words = " + ".join(f"{count} {name}" for name, count in parts.items())
        yield f"ledger of {tenant}: {words} = {sum(parts.values())}, the checkpoint is {checkpoint.position}"


def _difference(mine: dict[str, Any], other: dict[str, Any]) -> str:
    return ", ".join(f"{name} is {mine[name]!r}, the log says {other[name]!r}" for name in mine if mine[name] != other[name])
