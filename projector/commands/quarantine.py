"""python -m projector quarantine: list, show, retry, drop."""

import sys
from array import array
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from itertools import islice

import click

from projector.catch_up import catch_up, wait_until_applied
from projector.commands.cli import CommandRefused, opened, run_command
from projector.projection import PROJECTION_VERSION, QuarantineRow
from projector.quarantine import Forecast, drop, forecasts
from projector.rebuild import rebuild as rebuilding
from projector.store import Selection, Store
from streams import Log
from streams.runtime import Progress, Settings

SHOWN = 5
LEVEL_SECONDS = 30.0
REASONS = click.Choice(["invalid", "conflict", "lost"])


@click.group()
def quarantine() -> None:
    """What could not become a row: list it, show it, try it again, drop it."""


@quarantine.command("list")
@click.argument("tenant", required=False)
@click.option("--reason", type=REASONS, help="Only what is there for this reason.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="How many at most.")
def list_command(tenant: str | None, reason: str | None, limit: int) -> None:
    """Print what is in quarantine, of all tenants or of TENANT: tenant, position, when it was received, reason, bytes, detail;
    with tabs between."""

    async def act(settings: Settings) -> int:
        async with opened(settings) as (_, store):
            selection = Selection(tenant, reason=reason)
            for entry in islice(store.quarantine.entries(selection), limit):
                received = entry.received_at if entry.reason != "lost" else "-"
                words = (entry.tenant_id, str(entry.position), received, entry.reason, str(entry.size_bytes), entry.detail)
                print("\t".join(printable(word) for word in words))
            more = store.quarantine.count(selection) - limit
        if more > 0:
            print(f"and {more} more: --limit {limit + more}", file=sys.stderr)
        return 0

    run_command(act)


@quarantine.command()
@click.argument("tenant")
@click.argument("position", type=click.IntRange(min=1))
def show(tenant: str, position: int) -> None:
    """Print one record in quarantine: why it is there, and its bytes, as text when they are text, or else in hexadecimal."""

    async def act(settings: Settings) -> int:
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
        return 0

    run_command(act)


@quarantine.command()
@click.argument("tenant", required=False)
@click.option("--position", "positions", type=click.IntRange(min=1), multiple=True, help="Only this one; may be repeated.")
@click.option("--accept-loss", is_flag=True, help="As in rebuild: go on although the log misses records.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def retry(tenant: str | None, positions: tuple[int, ...], accept_loss: bool, yes: bool) -> None:
    """Try what is in quarantine again, of all tenants or of TENANT, with the projection of this version.

    Shows how many records would become rows now. If any would, their tenants are rebuilt from the log, online, so that the
    tables are what the log says and not a repair of it; then it says what became of them.
    """
    if positions and tenant is None:
        raise click.UsageError("--position needs a TENANT")

    async def act(settings: Settings) -> int:
        async with opened(settings) as (log, store):
            outcomes, leaving, first = await _tried(forecasts(log, store, Selection(tenant, positions)))
            print(f"{outcomes.total()} in quarantine: {_words(outcomes) or 'nothing to try again'}")
            for one in first:
                print(f"  {one.tenant} {one.position}: {one.outcome}, {printable(one.words)}")
            if not leaving:
                print(f"None would leave quarantine with projection version {PROJECTION_VERSION}; nothing was changed.")
                return 0
            store.check_version()
            if not yes:
                click.confirm(f"Rebuild {_named(list(leaving))} from the log?", abort=True)
            with Progress("rebuilding") as progress:
                await rebuilding.rebuild(log, store, tenants=list(leaving), accept_loss=accept_loss, progress=progress)
            for name, at in leaving.items():
                now = store.quarantine.outcomes(name, at)
                elsewhere = f"{now.neither} late duplicates or control records"
                print(f"{name}: {now.rows} rows, {elsewhere}, {now.quarantined} in quarantine")
        return 0

    run_command(act)


async def _tried(found: AsyncIterator[Forecast]) -> tuple[Counter[str], dict[str, "array[int]"], list[Forecast]]:
    """How many of each outcome; the positions that would leave quarantine, by tenant; and the first of these."""
    outcomes: Counter[str] = Counter()
    leaving: dict[str, array[int]] = defaultdict(lambda: array("q"))
    first: list[Forecast] = []
    async for one in found:
        outcomes[one.outcome] += 1
        if one.leaves:
            leaving[one.tenant].append(one.position)
            first += [one] if len(first) < SHOWN else []
    return outcomes, leaving, first


@quarantine.command("drop")
@click.argument("tenant")
@click.option("--position", "positions", type=click.IntRange(min=1), multiple=True, help="Only this one; may be repeated.")
@click.option("--reason", type=REASONS, help="Only what is there for this reason.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop_command(tenant: str, positions: tuple[int, ...], reason: str | None, yes: bool) -> None:
    """Remove records of TENANT from quarantine, for good: all, or those at positions, or there for a reason.

    A note in the log says so, and the tables carry it out as they apply events, also when they are made again. The records
    stay in the log. One that a later version of the projection can make a row of becomes a row when the tables are rebuilt.
    To drop what was dropped before does nothing.
    """

    async def act(settings: Settings) -> int:
        async with opened(settings) as (log, store):
            if not await catch_up(log, store, tenant, seconds=LEVEL_SECONDS):
                raise CommandRefused(f"the tables of {tenant} do not come level with its log; see `python -m projector status`")
            through = store.checkpoint(tenant).position
            selection = Selection(tenant, positions, reason, through)
            found = store.quarantine.count(selection)
            if not found:
                print("Nothing of this is in quarantine; there is nothing to drop.")
                return 0
            for entry in islice(store.quarantine.entries(selection), SHOWN):
                print(f"  {tenant} {entry.position}: {entry.reason}, {printable(entry.detail)}")
            if not yes:
                click.confirm(f"Drop {found} of {tenant}?", abort=True)
            dropped, last = await drop(log, store, selection)
            return await _said(log, store, tenant, dropped, last)

    run_command(act)


async def _said(log: Log, store: Store, tenant: str, dropped: int, last: int) -> int:
    """Say when the notes have been carried out, or that they are not yet."""
    if await wait_until_applied(log, store, tenant, last, seconds=LEVEL_SECONDS):
        print(f"{dropped} dropped; the log says so at position {last}.")
        return 0
    print(
        f"The log says at position {last} that {dropped} are dropped. The tables are not there yet: the next projector does it."
    )
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
    more = len(tenants) - SHOWN
    return ", ".join(tenants[:SHOWN]) + (f" and {more} more tenants" if more > 0 else "")


def text_or_hex(row: QuarantineRow) -> str:
    """A record's bytes for a terminal: nothing in them may steer it."""
    try:
        text = row.body.decode()
    except UnicodeDecodeError:
        return row.body.hex(" ")
    return text if printable(text, "\n\t") == text else row.body.hex(" ")


def printable(text: str, also: str = "") -> str:
    """Text without characters that steer a terminal, which are written as escapes."""
    return "".join(
        one if one.isprintable() or one in also else one.encode("unicode_escape", "surrogatepass").decode() for one in text
    )
