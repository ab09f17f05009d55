"""python -m api key: make, list and revoke the keys that speak for tenants."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from api.credentials import KEY_ID_LENGTH, ROLES, Role, hash_of, new_key
from projector import ApiKey, SqliteStore, StoreUnavailable, credentials, open_store
from streams import BadTenant, SettingError, keys_of, load_settings

BUSY_SECONDS = 30.0  # a rebuild that makes its indexes holds others that write


@click.group()
def key() -> None:
    """Make, list and revoke the keys that are needed with AUTH=keys.

    Keys are kept in the database of the tables, as SHA-256; no rebuild touches them. A tenant may have any number, so that
    they can be changed without a gap. A revoked key stops within two seconds.
    """


@key.command()
@click.argument("tenant")
@click.option(
    "--role", type=click.Choice(list(ROLES)), default="write", show_default=True, help="write appends, read reads, admin both."
)
@click.option("--label", default="", help="What it is for.")
def create(tenant: str, role: Role, label: str) -> None:
    """Make a key for TENANT and print it, this once."""
    made = new_key(role)
    with _store() as store:
        try:
            keys_of(tenant)
        except BadTenant as error:
            sys.exit(f"{tenant!r}: {error}")
        credentials.add(store, ApiKey(tenant, made[:KEY_ID_LENGTH], hash_of(made), role, label, time.time_ns() // 1_000))
    print(made)
    print(f"May {' and '.join(sorted(ROLES[role]))} as {tenant}. Keep it now: only its hash is stored.", file=sys.stderr)


@key.command("list")
@click.argument("tenant", required=False)
def list_keys(tenant: str | None) -> None:
    """List the keys of TENANT, or of all tenants."""
    table = Table("tenant", box=SIMPLE_HEAD)
    table.add_column("key", no_wrap=True)
    for name in ("role", "label", "created", "last used"):
        table.add_column(name)
    with _store() as store:
        for one in credentials.load(store)[1]:
            if tenant in (None, one.tenant_id):
                used = _moment(one.last_used_at_us) if one.last_used_at_us else "never"
                table.add_row(one.tenant_id, f"{one.key_id}…", one.role, escape(one.label), _moment(one.created_at_us), used)
    Console().print(table)


@key.command()
@click.argument("key_id", metavar="KEY")
def revoke(key_id: str) -> None:
    """Revoke KEY: what `list` shows of it, or all of it."""
    with _store() as store:
        if not credentials.revoke(store, key_id[:KEY_ID_LENGTH]):
            sys.exit(f"There is no key {key_id[:KEY_ID_LENGTH]}.")
    print(f"Revoked {key_id[:KEY_ID_LENGTH]}.")


@contextmanager
def _store() -> Iterator[SqliteStore]:
    """The store that the settings name; what is wrong with either ends the command with one sentence."""
    try:
        with open_store(load_settings().tables_url, cache_mib=8, busy_seconds=BUSY_SECONDS) as store:
            yield store
    except (SettingError, StoreUnavailable) as error:
        sys.exit(str(error))


def _moment(moment_us: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(moment_us // 1_000_000))
