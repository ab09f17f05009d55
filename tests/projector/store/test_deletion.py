"""A deleted tenant has no row until it is created again."""

from projector.projection import NO_CHECKPOINT, project
from projector.store import PREVIOUS, SHADOW, ApiKey, Store, TenantLimits
from projector.store.structs import Chunk
from streams import Record
from tests.support.records import record
from tests.support.stores import apply, contents

SESSIONLESS = (
    b'{"event_id":"e2","event_type":"view","properties":{"user_id":"u1"},"session_id":"","timestamp":"2026-01-01T10:00:00Z"}'
)
LOG = [record(1, session_id="S1", user_id="u1"), Record(2, 2, 1, SESSIONLESS), Record(3, 3, 1, b"bad")]


def test_a_deletion_removes_all_rows_of_the_tenant_and_of_no_other_tenant(tables: Store) -> None:
    for tenant in ("acme", "beta"):
        apply(tables, LOG, tenant)
        tables.api_keys.add(ApiKey(tenant, f"ps_{tenant}", tenant.encode(), "write", "", 1))
        tables.tenant_limits.keep(TenantLimits(tenant, events_per_second=1))
    beta, version = contents(tables, "beta"), tables.config_version()

    with tables.rebuilding():
        removed = tables.delete_tenant("acme")

    assert {table: rows for table, rows in contents(tables).items() if rows} == {}
    assert {table: count for table, count in removed.items() if count} == {
        "events": 2, "event_sessions": 2, "quarantine": 1, "checkpoints": 1, "api_keys": 1, "tenant_limits": 1,
    }  # fmt: skip
    assert contents(tables, "beta") == beta
    assert [key.tenant_id for key in tables.api_keys.load()] == list(tables.tenant_limits.load()) == ["beta"]
    assert tables.config_version() != version


def test_a_deletion_removes_the_rows_of_the_previous_set_too(tables: Store) -> None:
    apply(tables, LOG)
    tables.create_shadow()
    tables.write(SHADOW, Chunk([project("acme", 0, LOG, 3)]))
    with tables.swapping(SHADOW) as swap:
        swap.promote()

    assert tables.delete_tenant("acme")["events"] == 4

    with tables.swapping(PREVIOUS) as swap:
        swap.promote()
    assert contents(tables)["events"] == []


def test_no_batch_of_a_deleted_tenant_is_written_until_it_is_created_again(tables: Store) -> None:
    apply(tables, LOG)
    tables.delete_tenant("acme")

    assert tables.apply([project("acme", 0, LOG, 3), project("acme", 3, [record(4)], 4)]) == [False, False]
    assert tables.deleted_among(["acme", "beta"]) == {"acme"}
    state = tables.states(["acme", "beta"])
    assert (state["acme"].checkpoint, state["acme"].deleted) == (NO_CHECKPOINT, True)
    assert not state["beta"].deleted
    assert tables.queries.counts(["acme", "beta"]).deleted == ["acme"]

    assert tables.create_tenant("acme")
    assert not tables.create_tenant("acme")

    apply(tables, LOG)
    assert tables.states(["acme"])["acme"].checkpoint.position == 3


def test_an_unknown_tenant_can_be_deleted(tables: Store) -> None:
    assert sum(tables.delete_tenant("acme").values()) == 0
    assert tables.deleted_among(["acme"]) == {"acme"}
