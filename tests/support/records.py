"""Records for tests, alone and as generated logs."""

import json
from typing import Any

from hypothesis import strategies as st

from streams import Log, Record
from tests.support.events import event


def record(position: int, **members: Any) -> Record:
    return Record(position, 1_767_261_600_000_000 + position, 1, event(**members).body)


@st.composite
def logs(draw: st.DrawFn) -> list[Record]:
    """A log with interleaved sessions, duplicates and conflicts.

    Also records that no endpoint accepts, and control records that drop what is in quarantine, was dropped before, is a row, or
    comes later.
    """
    bodies = st.one_of(
        st.builds(
            lambda **members: event(**members).body,
            session_id=st.sampled_from(["S1", "S12", "é"]),
            event_type=st.sampled_from(["2x", "x", "view"]),
            timestamp=st.sampled_from([f"2026-01-01T10:00:0{i}Z" for i in range(5)]),
            event_id=st.one_of(st.none(), st.sampled_from(["a", "b"])),
            n=st.integers(0, 1),
        ),
        st.sampled_from([b"", b"[]", b"{}", b"\xff", b'{"session_id": "S1"}', event().body.replace(b"{}", b"[]")]),
    )
    records = []
    for i in range(1, draw(st.integers(1, 40)) + 1):
        version = draw(st.sampled_from([1, 1, 1, 1, 2, 0]))
        if version == 2 and draw(st.integers(0, 3)):
            records.append(
                control_record(i, *draw(st.lists(st.integers(1, max(1, i - draw(st.integers(0, 1)))), min_size=1, max_size=8)))
            )
        else:
            records.append(Record(i, i, version, draw(bodies)))
    return records


def control_record(position: int, *positions: int) -> Record:
    """A control record that drops positions."""
    return Record(position, position, 2, json.dumps({"action": "drop", "positions": positions}).encode())


async def records_of(log: Log, tenant: str = "acme", after: int = 0) -> list[Record]:
    """A tenant's records after a position, from wherever they are kept."""
    return [record async for page in log.read(tenant, after) for record in page]
