"""python -m api tenant: how much each tenant may send, and its removal from everywhere."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click
import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from api.commands.cli import opened, tenant_or_exit
from projector import Store, TenantLimits
from streams import Connection
from streams.erasure import delete_log, readmit_tenant
from streams.limits import LIMIT_NAMES
from streams.runtime import Settings
from streams.validation import INTEGER_LIMIT

T = TypeVar("T")
COMMAND_SECONDS = 30.0  # commands may wait longer for a busy server than a request may


def limit_value(text: str) -> int | str:
    """What an option says: a number, 0 for `none`, or `default`."""
    if text in ("none", "default"):
        return 0 if text == "none" else text
    if not (text.isascii() and text.isdigit() and 0 < int(text) < INTEGER_LIMIT):
        raise click.BadParameter(f"{text!r} is no whole number above 0, nor none, nor default")
    return int(text)


def limit_option(flag: str, words: str) -> Callable[[Any], Any]:
    """An option that sets a limit."""
    return click.option(flag, type=limit_value, metavar="N|none|default", help=words)


@click.group()
def tenant() -> None:
    """How much tenants may send, and the removal of one.

    Limits that are set here hold for one tenant, in the place of EVENTS_PER_SECOND, BYTES_PER_SECOND and EVENTS_PER_DAY. They
    are kept in the database of the tables; every API process follows within two seconds.
    """


@tenant.command("set")
@click.argument("name", metavar="TENANT")
@limit_option("--events-per-second", "Events a second.")
@limit_option("--bytes-per-second", "Bytes a second, of events as the log keeps them.")
@limit_option("--events-per-day", "Events a day, in UTC.")
def set_limits(name: str, **given: int | str | None) -> None:
    """Set limits of TENANT; those that are not named stay as they are."""
    tenant_or_exit(name)
    chosen = {limit: None if value == "default" else value for limit, value in given.items() if value is not None}
    if not chosen:
        raise click.UsageError("Name a limit to set: --events-per-second, --bytes-per-second or --events-per-day.")
    with opened() as (settings, store):
        own = store.tenant_limits.load().get(name, TenantLimits(name))
        store.tenant_limits.keep(msgspec.structs.replace(own, **chosen))
        _show(settings, store.tenant_limits.load(), name)


@tenant.command()
@click.argument("name", metavar="[TENANT]", required=False)
def show(name: str | None) -> None:
    """Show the limits in force of TENANT, or of every tenant that has its own, and those of all others."""
    with opened() as (settings, store):
        _show(settings, store.tenant_limits.load(), name)


def _show(settings: Settings, own: dict[str, TenantLimits], name: str | None) -> None:
    table = Table("tenant", box=SIMPLE_HEAD)
    for limit in LIMIT_NAMES:
        table.add_column(limit.replace("_", " "), justify="right")
    rows = [(one, own.get(one, TenantLimits(one))) for one in ([name] if name else own)]
    for one, kept in [*rows, *([] if name else [("(others)", TenantLimits(""))])]:
        in_force = msgspec.structs.astuple(kept.over(settings.limits))
        table.add_row(one, *(f"{value:,}" if value else "none" for value in in_force))
    Console().print(table)


@tenant.command()
@click.argument("name", metavar="TENANT")
def create(name: str) -> None:
    """Let TENANT, which was erased, begin again; its log starts at position 1. Others need no creation."""
    tenant_or_exit(name)
    with opened() as (settings, store):
        was_deleted = store.create_tenant(name)
        if not _ask(settings, lambda connection: readmit_tenant(connection, name)) and not was_deleted:
            sys.exit(f"{name} was not erased; there is nothing to do.")
    print(f"{name} may begin again. Keys that it had are gone: python -m api key create {name}")


@tenant.command()
@click.argument("name", metavar="TENANT")
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(name: str, yes: bool) -> None:
    """Remove TENANT from everywhere, for good: its log, rows, sessions, quarantine, keys, limits and counts.

    While it is removed, and from then on, what is sent for it is answered 410. Previous tables go, too; backups of yours do
    not. It may be interrupted and started again. A rebuild must not be running.
    """
    tenant_or_exit(name)
    if not yes:
        click.confirm(f"Remove everything of {name}? Nothing brings it back", abort=True)
    with opened() as (settings, store):
        with store.rebuilding():
            removed = _delete(settings, store, name)
    for what, count in removed.items():
        print(f"{count:>12,} {what}")
    print(f"Everything of {name} is removed. Nothing is taken for it until `python -m api tenant create {name}`.")


def _delete(settings: Settings, store: Store, name: str) -> dict[str, int]:
    """Remove a tenant, the log first: from there on nothing new comes. What was removed, by what it was."""
    log = _ask(settings, lambda connection: delete_log(connection, name, settings.archive))
    rows = store.delete_tenant(name)
    return {"records of the log": log.records, "deduplication keys": log.dedup_keys, "files of the archive": log.files} | {
        f"rows of {table}": count for table, count in sorted(rows.items())
    }


def _ask(settings: Settings, act: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
    """What an act over the wire gives."""

    async def asked() -> T:
        async with Connection(settings.log_url, budget_seconds=COMMAND_SECONDS) as connection:
            return await act(connection)

    return asyncio.run(asked())
