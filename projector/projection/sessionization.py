"""Derived sessions: those of events that came without a session. Pure.

A derived session is a maximal run of an actor's events with no gap longer than the session gap, by the events' own times. It is
named by its first event. Runs join into runs, in any order and grouping, so the same events give the same sessions whenever they
come. No position decides anything: `first_position`, the smallest among its events, is only a key.
"""

from collections.abc import Iterable, Sequence

import msgspec

from projector.projection.identities import LINKING, Link, links_of, named_in
from projector.projection.rows import EventRow, SessionRow
from projector.projection.session_rows import least

MARK = "~"  # the first character of a derived session's name


class Single(msgspec.Struct, frozen=True, gc=False):
    """An event without a session, as a run of one event.

    `identity` is its user or visitor.
    """

    identity: str
    run: SessionRow


class Sessionless(msgspec.Struct, frozen=True):
    """What events say of actors.

    `singles` are events without a session. `links` has each link as often as an event makes it.
    """

    singles: list[Single]
    links: list[Link]

    def __bool__(self) -> bool:
        return bool(self.singles or self.links)


NOTHING_SESSIONLESS = Sessionless([], [])


def sessionless_of(rows: Sequence[EventRow]) -> Sessionless:
    """What rows say of actors."""
    return Sessionless(
        [Single(row.identity, run_of(row)) for row in rows if row.identity],
        [link for row in rows if row.event_type in LINKING for link in links_of(row.event_type, row.properties)],
    )


def run_of(row: EventRow) -> SessionRow:
    """The run that an event is alone."""
    named = named_in(row.properties)
    return SessionRow(
        row.tenant_id,
        row.position,
        MARK + row.event_hash,
        row.timestamp_us,
        row.timestamp_us,
        1,
        row.event_type,
        row.event_type,
        named.user_id,
        named.anonymous_id,
        derived=1,
    )


def by_gap(runs: Iterable[SessionRow], session_gap_us: int) -> list[list[SessionRow]]:
    """Runs of one actor, grouped by the session that they make."""
    groups: list[list[SessionRow]] = []
    end = 0
    for run in sorted(runs, key=_beginning):
        if groups and run.started_at_us - end <= session_gap_us:
            groups[-1].append(run)
            end = max(end, run.last_event_at_us)
        else:
            groups.append([run])
            end = run.last_event_at_us
    return groups


def join(runs: Sequence[SessionRow], user_id: str) -> SessionRow:
    """The session that runs make together.

    `user_id` is the id that the actor's links give, or empty. Of events at the same time, content decides which is first (its
    name) and last (its type), never the order in which they came.
    """
    first, last = min(runs, key=_beginning), max(runs, key=_end)
    return SessionRow(
        first.tenant_id,
        min([run.first_position for run in runs]),
        first.session_id,
        first.started_at_us,
        last.last_event_at_us,
        sum([run.event_count for run in runs]),
        first.first_event_type,
        last.last_event_type,
        least([user_id, *[run.user_id for run in runs]]),
        least([run.anonymous_id for run in runs]),
        derived=1,
    )


def _beginning(run: SessionRow) -> tuple[int, str, str]:
    return run.started_at_us, run.session_id, run.first_event_type


def _end(run: SessionRow) -> tuple[int, str]:
    return run.last_event_at_us, run.last_event_type
