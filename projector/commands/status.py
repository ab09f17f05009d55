"""`penstock projector status`: the log and the tables side by side."""

from collections.abc import Callable, Sequence
from typing import Any

import click
import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from projector.commands.cli import opened, run_command
from projector.status import TenantStatus, Totals, status, totals
from projector.store import Store
from streams.runtime import Settings

LIMIT = 50
SORTS: dict[str, Callable[[TenantStatus], Any]] = {  # the largest first, but for the name
    "tenant": lambda entry: entry.tenant,
    "lag": lambda entry: (-entry.lag_records, entry.tenant),
    "lag-seconds": lambda entry: (-entry.lag_seconds, entry.tenant),
    "records": lambda entry: (-entry.records, entry.tenant),
    "rows": lambda entry: (-entry.rows, entry.tenant),
    "quarantined": lambda entry: (-entry.quarantined, entry.tenant),
}
TABLES = {  # two tables, so that both fit a terminal of 80 columns: title, then column and field
    "in the tables": {
        "records": "records",
        "rows": "rows",
        "sessions": "sessions",
        "lag": "lag_records",
        "lag s": "lag_seconds",
        "late\ndupl.": "late_duplicates",
        "quaran-\ntined": "quarantined",
        "dropped": "dropped",
        "erased": "erased",
    },
    "at the ingest endpoint": {
        "accepted": "records",
        "duplicate": "duplicate",
        "conflict": "conflict",
        "rejected": "rejected",
        "limited": "limited",
    },
}


@click.command("status")
@click.option("--stuck", is_flag=True, help="Only tenants that are stuck.")
@click.option("--lagging", is_flag=True, help="Only tenants with lag.")
@click.option("--tenant", "tenants", multiple=True, help="Only this tenant; may be repeated.")
@click.option("--sort", type=click.Choice(list(SORTS)), default="tenant", show_default=True, help="Largest first, or by name.")
@click.option("--limit", type=click.IntRange(min=1), default=LIMIT, show_default=True, help="How many tenants to show.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array of all of them, for programs.")
def status_command(stuck: bool, lagging: bool, tenants: tuple[str, ...], sort: str, limit: int, as_json: bool) -> None:
    """Show records, rows, sessions and lag of each tenant.

    Totals come first. Then, for each tenant, its records, rows, sessions and lag, the events that were not accepted, and, when
    the tenant is stuck, why. Each record is a row, a late duplicate, quarantined, dropped (or the control record that says so),
    erased, or lag.
    """

    async def act(settings: Settings) -> None:
        async with opened(settings) as (log, store):
            statuses = await status(log, store, tenants=tenants, with_sessions=False)
            chosen = sorted((entry for entry in statuses if _is_chosen(entry, stuck, lagging)), key=SORTS[sort])
            shown = _with_sessions(store, chosen if as_json else chosen[:limit])
        if as_json:
            print(msgspec.json.encode(shown).decode())
        else:
            print(words_of(totals(statuses)))
            _print(shown)
            if hidden := len(chosen) - len(shown):
                print(f"and {hidden:,} more: --limit {len(chosen)}")

    run_command(act)


def _is_chosen(entry: TenantStatus, stuck: bool, lagging: bool) -> bool:
    return (not stuck or entry.stuck is not None) and (not lagging or entry.lag_records > 0)


def _with_sessions(store: Store, statuses: Sequence[TenantStatus]) -> list[TenantStatus]:
    """With the number of sessions: only those that are shown are counted."""
    counts = store.queries.session_counts([entry.tenant for entry in statuses])
    return [msgspec.structs.replace(entry, sessions=counts.get(entry.tenant, 0)) for entry in statuses]


def words_of(sums: Totals) -> str:
    """Totals in one line."""
    return (
        f"{sums.tenants:,} tenants: {sums.records:,} records, {sums.rows:,} rows, lag of {sums.lag_records:,} records in "
        f"{sums.lagging:,} tenants, {sums.quarantined:,} quarantined, {sums.stuck:,} tenants stuck"
    )


def _print(statuses: Sequence[TenantStatus]) -> None:
    if not statuses:
        return
    for title, columns in TABLES.items():
        Console().print(_table(title, columns, statuses))
    for entry in statuses:
        if entry.stuck:
            print(f"{entry.tenant} is stuck: {entry.stuck}")


def _table(title: str, columns: dict[str, str], statuses: Sequence[TenantStatus]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0, title=title, title_justify="left", title_style="bold")
    table.add_column("tenant", overflow="fold", min_width=12)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for entry in statuses:
        values = [getattr(entry, field) for field in columns.values()]
        table.add_row(entry.tenant, *(f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" for value in values))
    return table
