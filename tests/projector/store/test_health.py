"""A store says whether it can be read, and has warnings for operators."""

from projector.store import Store
from tests.support.records import record
from tests.support.stores import apply, positions


def test_an_open_store_can_be_read_and_is_still_the_same_database(tables: Store) -> None:
    tables.check_readable()
    tables.check_identity()

    assert tables.warnings() == []
    assert tables.location


def test_a_reopened_store_can_be_written(tables: Store) -> None:
    apply(tables, [record(1)])
    tables.reopen()
    tables.maintain()

    apply(tables, [record(2, session_id="S2")], after=1)

    assert positions(tables) == [1, 2]
