"""python -m api key: make, list and revoke the keys that speak for tenants."""

import sys
import time

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from api.auth.credentials import KEY_ID_LENGTH, ROLES, Role, hash_of, new_key
from api.commands.cli import moment, opened, tenant_or_exit
from projector import ApiKey


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
    tenant_or_exit(tenant)
    with opened() as (_, store):
        store.api_keys.add(ApiKey(tenant, made[:KEY_ID_LENGTH], hash_of(made), role, label, time.time_ns() // 1_000))
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
    with opened() as (_, store):
        for one in store.api_keys.load():
            if tenant in (None, one.tenant_id):
                used = moment(one.last_used_at_us) if one.last_used_at_us else "never"
                table.add_row(one.tenant_id, f"{one.key_id}…", one.role, escape(one.label), moment(one.created_at_us), used)
    Console().print(table)


@key.command()
@click.argument("key_id", metavar="KEY")
def revoke(key_id: str) -> None:
    """Revoke KEY: what `list` shows of it, or all of it."""
    with opened() as (_, store):
        if not store.api_keys.revoke(key_id[:KEY_ID_LENGTH]):
            sys.exit(f"There is no key {key_id[:KEY_ID_LENGTH]}.")
    print(f"Revoked {key_id[:KEY_ID_LENGTH]}.")
