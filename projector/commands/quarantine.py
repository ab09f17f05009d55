"""`penstock projector quarantine`: records that could not become rows."""

import sys
from array import array
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from itertools import islice

import click

from projector import rebuild as rebuilding
from projector.catch_up import catch_up, wait_until_applied
from projector.commands.cli import CommandRefused, opened, run_command
from projector.projection import PROJECTION_VERSION, QuarantineRow
from projector.quarantine import Forecast, drop, forecasts
from projector.store import Selection, Store
from streams import Log
from streams.runtime import Progress, Settings

SHOWN = 5
LEVEL_SECONDS = 30.0
REASONS = click.Choice(["invalid", "conflict", "lost"])


@click.group()
def quarantine() -> None:
    """List, show, retry or drop records that became no row."""


@quarantine.command("list")
@click.argument("tenant", required=False)
@click.option("--reason", type=REASONS, help="Only records that are there for this reason.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="How many records to print.")
def list_command(tenant: str | None, reason: str | None, limit: int) -> None:
    """List the quarantine, of all tenants or of TENANT.

    One line for each record, with tabs between: tenant, position, when it was received, reason, bytes, detail.
    """

    async def act(settings: Settings) -> None:
        async with opened(settings) as (_, store):
            selection = Selection(tenant, reason=reason)
            for entry in islice(store.quarantine.entries(selection), limit):
                received = entry.received_at if entry.reason != "lost" else "-"
                words = (entry.tenant_id, str(entry.position), received, entry.reason, str(entry.size_bytes), entry.detail)
                print("\t".join(printable(word) for word in words))
            hidden = store.quarantine.count(selection) - limit
        if hidden > 0:
            print(f"and {hidden} more: --limit {limit + hidden}", file=sys.stderr)

    run_command(act)


@quarantine.command()
@click.argument("tenant")
@click.argument("position", type=click.IntRange(min=1))
def show(tenant: str, position: int) -> None:
    """Print a record in quarantine, and why it is there.

    Its bytes are printed as text when they are text, and in hexadecimal otherwise.
    """

    async def act(settings: Settings) -> None:
        async with opened(settings) as (_, store):
            row = store.quarantine.find(tenant, position)
            if row is None:
                raise CommandRefused(f"position {position} of {tenant} is not in quarantine")
            [entry] = store.quarantine.entries(Selection(tenant, [position]))
        received = entry.received_at if row.reason != "lost" else "-"
        for name, value in {
            "tenant": tenant, "position": position, "received": received, "reason": row.reason, "detail": row.detail,
            "bytes": len(row.body),
        }.items():  # fmt: skip
            print(f"{name + ':':<10}{printable(str(value))}")
        print()
        print(text_or_hex(row))

    run_command(act)


@quarantine.command()
@click.argument("tenant", required=False)
@click.option("--position", "positions", type=click.IntRange(min=1), multiple=True, help="Only this position; may be repeated.")
@click.option("--accept-loss", is_flag=True, help="As in rebuild: go on although the log misses records.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def retry(tenant: str | None, positions: tuple[int, ...], accept_loss: bool, yes: bool) -> None:
    """Retry the quarantine with the projection of this version.

    Of all tenants or of TENANT. It shows how many records would become rows now. If any would, their tenants are rebuilt from
    the log, online, so that the tables are what the log says and not a repair of them; then it says what became of the records.
    """
    if positions and tenant is None:
        raise click.UsageError("--position needs a TENANT")

    async def act(settings: Settings) -> int:
        async with opened(settings) as (log, store):
            outcomes, leaving, first = await _tried(forecasts(log, store, Selection(tenant, positions)))
            print(f"{outcomes.total()} in quarantine: {_words(outcomes) or 'nothing to retry'}")
            for forecast in first:
                print(f"  {forecast.tenant} {forecast.position}: {forecast.outcome}, {printable(forecast.words)}")
            if not leaving:
                print(f"None would leave quarantine with projection version {PROJECTION_VERSION}; nothing was changed.")
                return 0
            store.check_version()
            if not yes:
                click.confirm(f"Rebuild {_named(list(leaving))} from the log?", abort=True)
            with Progress("rebuilding") as progress:
                await rebuilding.rebuild(log, store, tenants=list(leaving), accept_loss=accept_loss, progress=progress)
            for name, retried in leaving.items():
                now = store.quarantine.outcomes(name, retried)
                elsewhere = f"{now.neither} late duplicates or control records"
                print(f"{name}: {now.rows} rows, {elsewhere}, {now.quarantined} in quarantine")
        return 0

    run_command(act)


async def _tried(tried: AsyncIterator[Forecast]) -> tuple[Counter[str], dict[str, "array[int]"], list[Forecast]]:
    """Count outcomes, and collect what would leave quarantine.

    Returns how many records have each outcome, the positions that would leave, by tenant, and the first forecasts of these.
    """
    outcomes: Counter[str] = Counter()
    leaving: dict[str, array[int]] = defaultdict(lambda: array("q"))
    first: list[Forecast] = []
    async for forecast in tried:
        outcomes[forecast.outcome] += 1
        if forecast.leaves:
            leaving[forecast.tenant].append(forecast.position)
            first += [forecast] if len(first) < SHOWN else []
    return outcomes, leaving, first


@quarantine.command("drop")
@click.argument("tenant")
@click.option("--position", "positions", type=click.IntRange(min=1), multiple=True, help="Only this position; may be repeated.")
@click.option("--reason", type=REASONS, help="Only records that are there for this reason.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop_command(tenant: str, positions: tuple[int, ...], reason: str | None, yes: bool) -> None:
    """Drop records of TENANT from quarantine, for good.

    All of them, or those at positions, or those that are there for a reason. A control record in the log says so, and the tables
    carry it out when they apply it, also when they are rebuilt. The records stay in the log. When a later version of the
    projection can make a row of such a record, it becomes a row when the tables are rebuilt. To drop a record twice does
    nothing.
    """

    async def act(settings: Settings) -> int:
        async with opened(settings) as (log, store):
            if not await catch_up(log, store, tenant, seconds=LEVEL_SECONDS):
                raise CommandRefused(f"the tables of {tenant} keep lagging behind its log; see `penstock projector status`")
            through = store.checkpoint(tenant).position
            selection = Selection(tenant, positions, reason, through)
            selected = store.quarantine.count(selection)
            if not selected:
                print("No such record is in quarantine; there is nothing to drop.")
                return 0
            for entry in islice(store.quarantine.entries(selection), SHOWN):
                print(f"  {tenant} {entry.position}: {entry.reason}, {printable(entry.detail)}")
            if not yes:
                click.confirm(f"Drop {selected} records of {tenant}?", abort=True)
            dropped, last = await drop(log, store, selection)
            return await _report(log, store, tenant, dropped, last)

    run_command(act)


async def _report(log: Log, store: Store, tenant: str, dropped: int, last: int) -> int:
    """Say whether the tables have carried out the drop."""
    if await wait_until_applied(log, store, tenant, last, seconds=LEVEL_SECONDS):
        print(f"{dropped} dropped; the log says so at position {last}.")
        return 0
    print(f"The log says at position {last} that {dropped} are dropped. The tables lag behind it; the next projector drops them.")
    return 1


def _words(outcomes: Counter[str]) -> str:
    names = {
        "row": "would become rows now",
        "control_record": "control records",
        "late_duplicate": "late duplicates",
        "conflict": "conflicts",
    }
    return ", ".join(f"{number} {names.get(outcome, outcome)}" for outcome, number in outcomes.most_common())


def _named(tenants: list[str]) -> str:
    hidden = len(tenants) - SHOWN
    return ", ".join(tenants[:SHOWN]) + (f" and {hidden} more tenants" if hidden > 0 else "")


def text_or_hex(row: QuarantineRow) -> str:
    """A record's bytes for a terminal: nothing in them may steer it."""
    try:
        text = row.body.decode()
    except UnicodeDecodeError:
        return row.body.hex(" ")
    return text if printable(text, "\n\t") == text else row.body.hex(" ")


def printable(text: str, also: str = "") -> str:
    """Text with escapes for characters that steer a terminal."""
    return "".join(
        letter if letter.isprintable() or letter in also else letter.encode("unicode_escape", "surrogatepass").decode()
        for letter in text
    )
