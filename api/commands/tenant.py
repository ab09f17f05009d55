"""`penstock api tenant`: limits of tenants, and deletion."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click
import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from api.commands.cli import CommandRefused, opened
from projector import Store, TenantLimits
from streams import Connection, keys_of
from streams.commands import open_log
from streams.erasure import delete_log, readmit_tenant
from streams.limits import LIMIT_NAMES
from streams.runtime import Settings, exit_with_sentence
from streams.validation import INTEGER_LIMIT

T = TypeVar("T")


def limit_value(text: str) -> int | str:
    """The value of an option: a number, 0 for `none`, or `default`."""
    if text in ("none", "default"):
        return 0 if text == "none" else text
    if not (text.isascii() and text.isdigit() and 0 < int(text) < INTEGER_LIMIT):
        raise click.BadParameter(f"{text!r} must be a whole number above 0, or none, or default")
    return int(text)


def limit_option(flag: str, words: str) -> Callable[[Any], Any]:
    """An option that sets a limit."""
    return click.option(flag, type=limit_value, metavar="N|none|default", help=words)


@click.group()
def tenant() -> None:
    """Set how much a tenant may send, or delete a tenant.

    A limit that is set here holds for one tenant, instead of EVENTS_PER_SECOND, BYTES_PER_SECOND or EVENTS_PER_DAY. Limits are
    kept in the database of the tables; every API process follows a change within two seconds.
    """


@tenant.command("set")
@click.argument("name", metavar="TENANT")
@limit_option("--events-per-second", "Events per second.")
@limit_option("--bytes-per-second", "Bytes per second, of events as the log keeps them.")
@limit_option("--events-per-day", "Events per day, in UTC.")
def set_limits(name: str, **given: int | str | None) -> None:
    """Set limits of TENANT; the other limits stay as they are."""
    chosen = {limit: None if value == "default" else value for limit, value in given.items() if value is not None}
    if not chosen:
        raise click.UsageError("Name a limit to set: --events-per-second, --bytes-per-second or --events-per-day.")
    with opened() as (settings, store):
        keys_of(name)
        own = store.tenant_limits.load().get(name, TenantLimits(name))
        store.tenant_limits.keep(msgspec.structs.replace(own, **chosen))
        _show(settings, store.tenant_limits.load(), name)


@tenant.command()
@click.argument("name", metavar="[TENANT]", required=False)
def show(name: str | None) -> None:
    """Show the limits in force, of TENANT or of all tenants.

    Without TENANT it shows every tenant that has limits of its own, and then the limits of all others.
    """
    with opened() as (settings, store):
        _show(settings, store.tenant_limits.load(), name)


def _show(settings: Settings, own: dict[str, TenantLimits], name: str | None) -> None:
    table = Table("tenant", box=SIMPLE_HEAD)
    for limit in LIMIT_NAMES:
        table.add_column(limit.replace("_", " "), justify="right")
    rows = [(tenant, own.get(tenant, TenantLimits(tenant))) for tenant in ([name] if name else own)]
    for label, limits in [*rows, *([] if name else [("(others)", TenantLimits(""))])]:
        in_force = msgspec.structs.astuple(limits.over(settings.limits))
        table.add_row(label, *(f"{value:,}" if value else "none" for value in in_force))
    Console().print(table)


@tenant.command()
@click.argument("name", metavar="TENANT")
def create(name: str) -> None:
    """Let a deleted TENANT begin again.

    Its log starts at position 1. A tenant that was not deleted needs no creation: it begins with its first event.
    """
    with opened() as (settings, store):
        keys_of(name)
        was_deleted = store.create_tenant(name)
        if not _ask(settings, lambda connection: readmit_tenant(connection, name)) and not was_deleted:
            raise CommandRefused(f"{name} was not deleted; there is nothing to do")
    print(f"{name} may begin again. The keys that it had were deleted: penstock api key create {name}")


@tenant.command()
@click.argument("name", metavar="TENANT")
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(name: str, yes: bool) -> None:
    """Delete TENANT: its log, rows, keys, limits and counts.

    Its sessions, its quarantine and the previous tables are deleted too; your backups are not. While it runs, and from then on,
    events for this tenant are answered 410. Interrupt it at any moment and start it again. A rebuild must not be running.
    """
    with exit_with_sentence():
        keys_of(name)
    if not yes:
        click.confirm(f"Delete everything of {name}? Nothing brings it back", abort=True)
    with opened() as (settings, store):
        with store.rebuilding():
            removed = _delete(settings, store, name)
    for what, count in removed.items():
        print(f"{count:>12,} {what}")
    print(f"Everything of {name} is deleted. No event is accepted for it until `penstock api tenant create {name}`.")


def _delete(settings: Settings, store: Store, name: str) -> dict[str, int]:
    """Delete a tenant; how much was deleted, by kind.

    The log goes first: from then on nothing new arrives.
    """
    log = _ask(settings, lambda connection: delete_log(connection, name, settings.archive))
    rows = store.delete_tenant(name)
    return {"records of the log": log.records, "deduplication keys": log.dedup_keys, "files of the archive": log.files} | {
        f"rows of {table}": count for table, count in sorted(rows.items())
    }


def _ask(settings: Settings, act: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
    """What a function returns that talks to the server of the log."""

    async def asked() -> T:
        async with open_log(settings) as log:
            return await act(log.connection)

    return asyncio.run(asked())
