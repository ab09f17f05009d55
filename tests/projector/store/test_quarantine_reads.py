"""Records in quarantine are listed, counted and found."""

import pytest

from projector.store import Outcomes, Selection, Store
from streams import Record
from tests.support.records import record
from tests.support.stores import apply

BAD = 450  # more than two pages


@pytest.fixture
def filled(tables: Store) -> Store:
    """Rows, and records in quarantine for two reasons, of two tenants."""
    invalid = [Record(i, i, 1, b"bad %d" % i) for i in range(1, BAD + 1)]
    named = [record(BAD + 1, event_id="a", n=1), record(BAD + 2, event_id="a", n=2)]
    apply(tables, [*invalid, *named])
    apply(tables, [Record(1, 1, 1, b"of beta")], "beta")
    return tables


def test_entries_are_listed_by_tenant_and_position_without_bodies(filled: Store) -> None:
    entries = list(filled.quarantine.entries(Selection()))

    assert [(entry.tenant_id, entry.position) for entry in entries] == [
        *(("acme", position) for position in (*range(1, BAD + 1), BAD + 2)),
        ("beta", 1),
    ]
    assert (entries[0].reason, entries[0].size_bytes, entries[0].received_at) == (
        "invalid",
        len(b"bad 1"),
        "1970-01-01T00:00:00.000001Z",
    )


def test_a_selection_filters_by_tenant_reason_and_position(filled: Store) -> None:
    quarantine = filled.quarantine

    assert quarantine.count(Selection()) == BAD + 2
    assert quarantine.count(Selection("acme", reason="conflict")) == 1
    assert quarantine.count(Selection("acme", reason="invalid", through=100)) == 100
    assert list(quarantine.positions(Selection("acme", [7, 3, BAD + 1]))) == [[3, 7]]


def test_bodies_are_read_in_pages(filled: Store) -> None:
    pages = list(filled.quarantine.pages(Selection("acme")))

    assert len(pages) > 2
    assert [row.body for page in pages for row in page][:2] == [b"bad 1", b"bad 2"]


def test_a_record_is_found_by_its_position(filled: Store) -> None:
    row = filled.quarantine.find("acme", 5)

    assert row is not None and (row.body, row.reason) == (b"bad 5", "invalid")
    assert filled.quarantine.find("acme", BAD + 1) is None


def test_outcomes_count_rows_and_quarantine_at_positions(filled: Store) -> None:
    outcomes = filled.quarantine.outcomes("acme", [1, 2, BAD + 1, BAD + 2, BAD + 3])

    assert outcomes == Outcomes(rows=1, quarantined=3, neither=1)
