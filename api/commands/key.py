"""`penstock api key`: make, list and revoke the keys of tenants."""

import sys
import time

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from api.auth.credentials import KEY_ID_LENGTH, ROLES, Role, hash_of, new_key
from api.commands.cli import CommandRefused, moment, opened
from projector import ApiKey
from streams import keys_of


@click.group()
def key() -> None:
    """Make, list and revoke the keys that AUTH=keys needs.

    Keys are kept in the database of the tables, as SHA-256; no rebuild touches them. A tenant may have any number of keys, so
    that a key can be replaced without a pause. A revoked key stops working within two seconds.
    """


@key.command()
@click.argument("tenant")
@click.option(
    "--role", type=click.Choice(list(ROLES)), default="write", show_default=True, help="write appends, read reads, admin both."
)
@click.option("--label", default="", help="What the key is for.")
def create(tenant: str, role: Role, label: str) -> None:
    """Make a key for TENANT and print it, this once."""
    secret = new_key(role)
    with opened() as (_, store):
        keys_of(tenant)
        store.api_keys.add(ApiKey(tenant, secret[:KEY_ID_LENGTH], hash_of(secret), role, label, time.time_ns() // 1_000))
    print(secret)
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
        for entry in store.api_keys.load():
            if tenant in (None, entry.tenant_id):
                used = moment(entry.last_used_at_us) if entry.last_used_at_us else "never"
                created = moment(entry.created_at_us)
                table.add_row(entry.tenant_id, f"{entry.key_id}…", entry.role, escape(entry.label), created, used)
    Console().print(table)


@key.command()
@click.argument("key_id", metavar="KEY")
def revoke(key_id: str) -> None:
    """Revoke KEY, given as `list` shows it, or whole."""
    with opened() as (_, store):
        if not store.api_keys.revoke(key_id[:KEY_ID_LENGTH]):
            raise CommandRefused(f"There is no key {key_id[:KEY_ID_LENGTH]}")
    print(f"Revoked {key_id[:KEY_ID_LENGTH]}.")
