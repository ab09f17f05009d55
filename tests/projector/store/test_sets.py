"""A shadow set replaces the live set; the previous set can come back."""

from collections.abc import Callable

import pytest

from projector.projection import project
from projector.store import LIVE, PREVIOUS, SHADOW, OtherProjection, RebuildRunning, Store
from projector.store.structs import Chunk
from tests.support.engines import Engine, Open
from tests.support.records import record
from tests.support.stores import apply, contents, positions

LOG = [record(i, session_id=f"S{i % 2}", event_id=f"e{i}") for i in range(1, 7)]


def fill_shadow(store: Store, through: int) -> None:
    """Fill a shadow set from the log up to a position."""
    store.create_shadow(records=through)
    store.write(SHADOW, Chunk([project("acme", 0, LOG[:through], through)]))
    store.index_shadow()


def test_no_reader_sees_a_shadow_set_before_it_is_promoted(tables: Store) -> None:
    apply(tables, LOG[:2])

    fill_shadow(tables, 4)

    assert positions(tables) == [1, 2]
    assert tables.has_set(SHADOW) and not tables.has_set(PREVIOUS)
    assert tables.checkpoint("acme", SHADOW).position == 4
    assert {tenant: checkpoint.position for tenant, checkpoint in tables.checkpoints(SHADOW).items()} == {"acme": 4}


def test_a_swap_applies_the_last_records_and_promotes_the_set(tables: Store) -> None:
    apply(tables, LOG[:3])
    fill_shadow(tables, 2)

    with tables.swapping(SHADOW) as swap:
        assert (swap.checkpoints()["acme"].position, swap.live_checkpoints()["acme"].position) == (2, 3)
        assert swap.apply(project("acme", 2, LOG[2:3], 3))
        assert not swap.apply(project("acme", 2, LOG[2:3], 3))
        swap.promote()

    assert positions(tables) == [1, 2, 3]
    assert tables.has_set(PREVIOUS) and not tables.has_set(SHADOW)
    apply(tables, LOG[3:], after=3)
    assert positions(tables) == [1, 2, 3, 4, 5, 6]
    assert tables.checkpoint("acme", PREVIOUS).position == 3


def test_a_swap_that_fails_changes_nothing(tables: Store) -> None:
    apply(tables, LOG[:3])
    fill_shadow(tables, 2)

    with pytest.raises(KeyboardInterrupt), tables.swapping(SHADOW) as swap:
        swap.apply(project("acme", 2, LOG[2:3], 3))
        swap.promote()
        raise KeyboardInterrupt

    assert positions(tables) == [1, 2, 3]
    assert tables.checkpoint("acme", SHADOW).position == 2
    assert not tables.has_set(PREVIOUS)


def test_the_previous_set_can_be_promoted_again_and_again(tables: Store) -> None:
    apply(tables, LOG[:2])
    before = contents(tables)
    fill_shadow(tables, 4)
    promote(tables)

    for expected in ([1, 2], [1, 2, 3, 4], [1, 2]):
        with tables.swapping(PREVIOUS) as swap:
            swap.promote()
        assert positions(tables) == expected

    assert contents(tables) == before


def test_repeated_rebuilds_keep_a_single_previous_set(tables: Store) -> None:
    for through in (2, 4, 6):
        fill_shadow(tables, through)
        promote(tables)
        tables.drop_leftovers()

    assert positions(tables) == [1, 2, 3, 4, 5, 6]
    assert tables.checkpoint("acme", PREVIOUS).position == 4


def promote(store: Store) -> None:
    """Make the shadow set the live set."""
    with store.swapping(SHADOW) as swap:
        swap.promote()


def test_a_single_tenant_is_replaced_in_the_live_set(tables: Store) -> None:
    apply(tables, LOG[:2])
    apply(tables, [record(1, session_id="of beta")], "beta")
    beta = contents(tables, "beta")
    fill_shadow(tables, 4)

    with tables.swapping(SHADOW) as swap:
        swap.replace_tenants(["acme"])

    assert positions(tables) == [1, 2, 3, 4]
    assert contents(tables, "beta") == beta
    assert not tables.has_set(PREVIOUS)


def test_a_new_shadow_set_replaces_an_interrupted_shadow_set(tables: Store) -> None:
    fill_shadow(tables, 4)

    tables.create_shadow()

    assert tables.checkpoints(SHADOW) == {}
    tables.drop_leftovers()
    assert not tables.has_set(SHADOW)


def test_a_second_rebuild_at_the_same_time_is_refused(tables: Store, open_database: Open) -> None:
    with tables.rebuilding(), open_database() as same_database:
        with pytest.raises(RebuildRunning), same_database.rebuilding():
            pass
    with tables.rebuilding():
        pass


def test_a_set_keeps_its_session_gap(tables: Store, open_database: Open) -> None:
    gap = tables.session_gap_us()
    with open_database(session_gap_us=gap * 2) as same_database:
        assert (same_database.session_gap_us(), same_database.new_set_session_gap_us) == (gap, gap * 2)
        same_database.create_shadow()
        assert same_database.session_gap_us(SHADOW) == gap * 2
        same_database.create_shadow(session_gap_us=7)
        assert same_database.session_gap_us(SHADOW) == 7
        promote(same_database)
        assert (same_database.session_gap_us(), same_database.session_gap_us(PREVIOUS)) == (7, gap)


@pytest.mark.parametrize("change", [lambda store: None, promote], ids=["live", "previous"])
def test_each_set_has_its_own_projection_version(tables: Store, engine: Engine, change: Callable[[Store], None]) -> None:
    engine.make_old(tables, 2)
    tables.create_shadow()
    tables.check_version(SHADOW)
    change(tables)

    with pytest.raises(OtherProjection, match="version 2"):
        tables.check_version(LIVE if tables.has_set(SHADOW) else PREVIOUS)
