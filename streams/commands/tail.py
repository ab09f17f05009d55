"""`penstock streams tail`: the records of a tenant in the terminal."""

import asyncio
from datetime import UTC, datetime

import click

from streams.commands.cli import open_log
from streams.event import Record
from streams.runtime.cli import run_command
from streams.runtime.settings import Settings

LAST_RECORDS = 10
PAUSE_SECONDS = 0.2


@click.command()
@click.argument("tenant")
@click.option("--after", type=click.IntRange(min=0), help="Start after this position, not 10 records before the end.")
@click.option("--follow/--no-follow", default=True, help="Wait for more records at the end, or stop there.")
def tail(tenant: str, after: int | None, follow: bool) -> None:
    """Print a tenant's records as they arrive.

    One line for each record: its position, when it was received, the event as JSON.
    """

    async def print_records(settings: Settings) -> None:
        async with open_log(settings) as log:
            position = max(0, await log.last_position(tenant) - LAST_RECORDS) if after is None else after
            while True:
                async for page in log.read(tenant, position):
                    for record in page:
                        print(line_of(record), flush=True)
                    position = page[-1].position
                if not follow:
                    return
                await asyncio.sleep(PAUSE_SECONDS)

    run_command(print_records)


def line_of(record: Record) -> str:
    """A record as one line for a person."""
    received = datetime.fromtimestamp(record.received_at_us / 1_000_000, UTC).isoformat(timespec="milliseconds")
    return f"{record.position}\t{received}\t{record.body.decode(errors='replace')}"
