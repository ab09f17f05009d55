"""`penstock streams export` and `import`: a log as a file."""

import contextlib
import os
import stat
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import BinaryIO

import click
import msgspec
from redis.exceptions import ResponseError

from streams.commands.cli import COMMAND_SECONDS, open_log
from streams.errors import PenstockError
from streams.keys import keys_of
from streams.log import Log
from streams.runtime.cli import exit_with_sentence, run_command, sentence_of
from streams.runtime.files import written_whole
from streams.runtime.progress import Progress
from streams.runtime.settings import Settings
from streams.transfer.csv_rows import csv_lines
from streams.transfer.file import resumed
from streams.transfer.format import LINE_LIMIT_BYTES, export, lines_of
from streams.transfer.import_events import EventImport, Refusal, ndjson_lines
from streams.transfer.import_log import LogImport

READERS = {"ndjson": ndjson_lines, "csv": csv_lines}
LINES_REFUSED = 2  # the exit status of an import that refused lines


class NothingToExport(PenstockError):
    """The log has no records that could be exported."""


class ImportStopped(PenstockError):
    """An import ended early; the message says how far it came."""


class BadUsage(PenstockError):
    """The options do not go together."""


@click.command("export")
@click.argument("tenant")
@click.option("--after", type=click.IntRange(min=0), default=0, help="Start after this position.")
@click.option("--out", default="-", metavar="FILE", help="The file to write; - is stdout, and the default.")
def export_command(tenant: str, after: int, out: str) -> None:
    """Write a tenant's log to a file, as lines of JSON.

    A header comes first, then every record with its position. FILE is complete or does not exist. With --after N, a FILE that
    exists must end at position N, and the records after N are added to it.
    """
    run_command(lambda settings: _export(settings, tenant, after, out))


async def _export(settings: Settings, tenant: str, after: int, out: str) -> None:
    async with _open_log(settings) as log:
        last = await log.last_position(tenant)
        if not last:
            raise NothingToExport(f"There is no log of {tenant}")
        if after > last:
            raise NothingToExport(f"The log of {tenant} ends at position {last}; there is nothing after {after}")
        started = time.monotonic()
        with _opened_to_write(out, tenant, after) as file, Progress("exporting") as show:
            async for position, lines in export(log, tenant, after, last):
                file.write(lines)
                show(position - after, last - after)
            file.flush()
        print(f"exported: the log of {tenant} up to position {last}, {last - after} records, {_in(started)}", file=sys.stderr)


def _opened_to_write(out: str, tenant: str, after: int) -> contextlib.AbstractContextManager[BinaryIO]:
    if out == "-":
        return contextlib.nullcontext(sys.stdout.buffer)
    exists = os.path.exists(out)
    if exists and not stat.S_ISREG(os.stat(out).st_mode):
        return open(out, "wb")
    return resumed(out, tenant, after) if exists and after else written_whole(out)


@click.command("import")
@click.argument("file", default="-")
@click.option(
    "--format", "kind", type=click.Choice(["log", *READERS]), default="log",
    help="log: a file of `export`. ndjson, csv: events from elsewhere, one on each line or row.",
)  # fmt: skip
@click.option("--tenant", help="The tenant of the events, with ndjson and csv.")
@click.option("--rejects", metavar="FILE", help="Write refused lines to this file, not to the terminal.")
@click.option("--wait", type=click.FloatRange(min=0), default=60.0, help="Seconds to wait for a server that is away or full.")
def import_command(file: str, kind: str, tenant: str | None, rejects: str | None, wait: float) -> None:
    """Read an exported log, or events from elsewhere.

    Interrupt it at any moment and start it again: records that the log has already are compared, events that it has already are
    answered `duplicate`.

    An exported log keeps its tenant and its positions; nothing else may append to that log meanwhile. Events from elsewhere are
    appended at the end of a log, after the checks of the ingest endpoint, and keep their timestamps. The first row of a CSV
    names session_id, event_type, timestamp, optionally event_id, and the properties. The exit status is 0, or 2 when lines were
    refused, or 1 when the import could not go on.
    """
    if kind == "log":
        run_command(lambda settings: _import_log(settings, file, tenant, wait))
    with exit_with_sentence():
        if tenant is None:
            raise BadUsage(f"Name the tenant of the events: --format {kind} --tenant TENANT")
        if rejects and os.path.exists(rejects) and os.path.exists(file) and os.path.samefile(rejects, file):
            raise BadUsage(f"{rejects} cannot be read and written at once")
    run_command(lambda settings: _import_events(settings, file, kind, tenant, rejects, wait))


async def _import_log(settings: Settings, path: str, tenant: str | None, wait_seconds: float) -> None:
    started = time.monotonic()
    async with _open_log(settings) as log:
        log_import = LogImport(log, dedup_window_seconds=settings.dedup_window_seconds, wait_seconds=wait_seconds)
        with _stopping_with(lambda: _so_far(log_import)), _opened_to_read(path) as file, Progress("importing") as show:
            await log_import.run(lines_of(file, LINE_LIMIT_BYTES), tenant=tenant, show=show)
    through = f"the log of {log_import.tenant} up to position {log_import.position}"
    print(f"imported: {through}, {log_import.written} records written, {log_import.compared} were there, {_in(started)}")


async def _import_events(settings: Settings, path: str, kind: str, tenant: str, rejects: str | None, wait_seconds: float) -> int:
    keys_of(tenant)
    async with _open_log(settings) as log:
        with _opened_to_read(path) as file, _refusals_to(rejects) as refuse, Progress("importing", unit=_unit(file)) as show:
            event_import = EventImport(log, tenant, refuse=refuse, wait_seconds=wait_seconds)
            size = os.fstat(file.fileno()).st_size if file.seekable() else None
            with _stopping_with(lambda: _events_so_far(event_import)):
                lines = READERS[kind](file, settings.max_event_bytes)
                await event_import.run(lines, show=lambda line: show(line if size is None else file.tell(), size))
    print(f"imported: {_counts(event_import)}")
    return LINES_REFUSED if event_import.counts["rejected"] + event_import.counts["conflict"] else 0


@contextlib.contextmanager
def _stopping_with(progress: Callable[[], str]) -> Iterator[None]:
    """Say beside an error how far an import came."""
    try:
        yield
    except (PenstockError, OSError, ResponseError) as error:
        raise ImportStopped(f"{sentence_of(error)} {progress()}") from error


def _events_so_far(event_import: EventImport) -> str:
    return f"Up to line {event_import.line} all is done: {_counts(event_import)}. Start it again to go on."


def _so_far(log_import: LogImport) -> str:
    if not log_import.tenant:
        return "Nothing was written."
    through = f"Up to position {log_import.position} the log of {log_import.tenant} is as in the file"
    return f"{through}; {log_import.written or 'no'} records were written."


@contextlib.asynccontextmanager
async def _open_log(settings: Settings) -> AsyncIterator[Log]:
    """The log, after its server has answered.

    An import retries its calls, so a single call waits no longer than a request does.
    """
    async with open_log(settings, budget_seconds=settings.append_timeout_seconds) as log:
        await log.connection.pipeline([("PING",)], budget_seconds=COMMAND_SECONDS)
        yield log


def _opened_to_read(path: str) -> contextlib.AbstractContextManager[BinaryIO]:
    return contextlib.nullcontext(sys.stdin.buffer) if path == "-" else open(path, "rb", buffering=256 * 1024)


def _unit(file: BinaryIO) -> str:
    return "bytes" if file.seekable() else "lines"


@contextlib.contextmanager
def _refusals_to(path: str | None) -> Iterator[Callable[[Refusal], None]]:
    """A function that writes refusals to a file, or to stderr.

    In a file, each refusal is one line of JSON.
    """
    if path is None:
        yield lambda refusal: print(_line_of(refusal), file=sys.stderr)
        return
    with open(path, "w", encoding="utf-8") as file:
        yield lambda refusal: print(msgspec.json.encode(refusal).decode(), file=file)


def _line_of(refusal: Refusal) -> str:
    return f"line {refusal.line}: {refusal.field and f'{refusal.field} '}{refusal.reason}"


def _counts(event_import: EventImport) -> str:
    return ", ".join(f"{count} {status}" for status, count in event_import.counts.items())


def _in(started: float) -> str:
    return f"in {time.monotonic() - started:.1f} s"
