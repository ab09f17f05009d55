"""Rows as the projector makes them, in the transactions that it writes."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from bench.workload import bodies
from projector.projection import project
from projector.projection.additions import additions_of, at_positions, values_of
from streams import EVENT_VERSION, Record, parse_event
from streams.runtime import load_settings

Values = list[tuple[Any, ...]]
BATCH_RECORDS = load_settings({}).projector_batch_records


def transactions(tenants: Sequence[str], records: int, *, seed: str, after: int = 0) -> Iterator[tuple[Values, Values]]:
    """The rows and sessions of records, a transaction each.

    Tenants take turns; a turn fills the transaction.
    """
    each = records // len(tenants)
    streams = {tenant: bodies(tenant, each, seed=seed, after=after) for tenant in tenants}
    known: dict[str, dict[str, int]] = {tenant: {} for tenant in tenants}
    position = dict.fromkeys(tenants, after)
    events: Values = []
    sessions: Values = []
    while streams:
        for tenant in list(streams):
            count = min(BATCH_RECORDS - len(events), after + each - position[tenant])
            page = [
                Record(position[tenant] + 1 + i, 0, EVENT_VERSION, parse_event(next(streams[tenant])).body) for i in range(count)
            ]
            _project(tenant, page, known[tenant], events, sessions)
            position[tenant] += count
            if position[tenant] == after + each:
                del streams[tenant]
            if len(events) == BATCH_RECORDS:
                yield events, sessions
                events, sessions = [], []
    if events:
        yield events, sessions


def _project(tenant: str, page: list[Record], known: dict[str, int], events: Values, sessions: Values) -> None:
    batch = project(tenant, page[0].position - 1, page, page[-1].position)
    assert not batch.quarantined, batch.quarantined[0]
    additions = additions_of(batch.rows)
    moved = {row.first_position: known[row.session_id] for row in additions.sessions if row.session_id in known}
    added = at_positions(additions.sessions, moved)
    known.update({session.session_id: session.first_position for session in added})
    events += values_of(batch.rows, additions, moved)
    sessions += map(msgspec.structs.astuple, added)
