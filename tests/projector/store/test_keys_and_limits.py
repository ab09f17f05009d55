"""Keys and limits are kept, and every change gives a new version."""

from projector.store import SHADOW, ApiKey, Store, TenantLimits
from tests.support.engines import Open


def key_of(tenant: str, number: int) -> ApiKey:
    """A key that was created at the time `number`."""
    return ApiKey(tenant, f"ps_{tenant}_{number}", bytes([number]) * 32, "write", "the shop", number)


def test_keys_are_listed_by_tenant_oldest_first(tables: Store) -> None:
    keys = [key_of("beta", 1), key_of("acme", 3), key_of("acme", 2)]
    for key in keys:
        tables.api_keys.add(key)

    assert tables.api_keys.load() == [keys[2], keys[1], keys[0]]


def test_a_revoked_key_is_removed(tables: Store) -> None:
    tables.api_keys.add(key_of("acme", 1))

    assert tables.api_keys.revoke("ps_acme_1")
    assert not tables.api_keys.revoke("ps_acme_1")
    assert tables.api_keys.load() == []


def test_the_latest_use_of_a_key_is_kept(tables: Store) -> None:
    tables.api_keys.add(key_of("acme", 1))

    for moment_us in (5, 7, 6):
        tables.api_keys.note_uses({bytes([1]) * 32: moment_us, b"unknown": 9})

    assert [key.last_used_at_us for key in tables.api_keys.load()] == [7]


def test_limits_are_kept_and_removed(tables: Store) -> None:
    own = TenantLimits("acme", events_per_second=5, events_per_day=0)
    tables.tenant_limits.keep(TenantLimits("acme", events_per_second=1))
    tables.tenant_limits.keep(own)
    tables.tenant_limits.keep(TenantLimits("beta", bytes_per_second=7))
    assert tables.tenant_limits.load() == {"acme": own, "beta": TenantLimits("beta", bytes_per_second=7)}

    tables.tenant_limits.keep(TenantLimits("beta"))

    assert tables.tenant_limits.load() == {"acme": own}


def test_every_change_has_a_new_version_that_other_processes_see(tables: Store, open_database: Open) -> None:
    with open_database() as same_database:
        versions = [same_database.config_version()]
        tables.api_keys.add(key_of("acme", 1))
        versions.append(same_database.config_version())
        tables.tenant_limits.keep(TenantLimits("acme", events_per_second=1))
        versions.append(same_database.config_version())
        tables.api_keys.revoke("ps_acme_1")
        versions.append(same_database.config_version())
        tables.api_keys.note_uses({})

        assert len(set(versions)) == 4
        assert same_database.config_version() == versions[-1]


def test_two_databases_with_the_same_keys_have_different_versions(tables: Store, other_tables: Store) -> None:
    for store in (tables, other_tables):
        store.api_keys.add(key_of("acme", 1))

    assert tables.config_version() != other_tables.config_version()


def test_a_swap_does_not_change_keys_and_limits(tables: Store) -> None:
    tables.api_keys.add(key_of("acme", 1))
    tables.tenant_limits.keep(TenantLimits("acme", events_per_second=1))
    tables.create_shadow()

    with tables.swapping(SHADOW) as swap:
        swap.promote()

    assert [key.key_id for key in tables.api_keys.load()] == ["ps_acme_1"]
    assert list(tables.tenant_limits.load()) == ["acme"]
