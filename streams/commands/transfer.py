"""python -m streams export and import: a log moves to another installation, a history moves in."""

import asyncio
import contextlib
import os
import stat
import sys
import time
from collections.abc import Coroutine, Iterator
from typing import Any, BinaryIO

import click
import msgspec
from redis.exceptions import ResponseError

from streams.connection import Connection
from streams.errors import BadTenant, Gap, LogBusy, LogFull, LogRefused, LogUnavailable, TenantDeleted
from streams.keys import keys_of
from streams.log import Log
from streams.runtime.cli import settings_or_exit
from streams.runtime.files import written_whole
from streams.runtime.progress import Progress
from streams.runtime.settings import Settings
from streams.transfer.csv_rows import BadColumns, csv_lines
from streams.transfer.file import OtherFile, resumed
from streams.transfer.format import LINE_LIMIT_BYTES, BadLine, export, lines_of
from streams.transfer.import_events import EventImport, Refusal, ndjson_lines
from streams.transfer.import_log import LogDiffers, LogEndsBefore, LogImport

READERS = {"ndjson": ndjson_lines, "csv": csv_lines}
REFUSED = 2  # the exit status when some lines were
ENDS = (
    BadColumns, BadLine, BadTenant, Gap, LogBusy, LogDiffers, LogEndsBefore, LogFull, LogRefused, LogUnavailable, OSError,
    OtherFile, ResponseError, TenantDeleted,
)  # fmt: skip


@click.command("export")
@click.argument("tenant")
@click.option("--after", type=click.IntRange(min=0), default=0, help="Begin behind this position.")
@click.option("--out", default="-", metavar="FILE", help="Where to; - is the terminal or a pipe, and the default.")
def export_command(tenant: str, after: int, out: str) -> None:
    """Write a tenant's log as lines of JSON: a header, then every record with its position.

    FILE is there when all of it is, or not at all. With --after N, a FILE that is there must end at N, and is gone on with.
    """
    _ended_by(_export(settings_or_exit(), tenant, after, out))


async def _export(settings: Settings, tenant: str, after: int, out: str) -> None:
    async with _log_of(settings) as log:
        last = await log.last_position(tenant)
        if not last:
            sys.exit(f"There is no log of {tenant}.")
        if after > last:
            sys.exit(f"The log of {tenant} ends at position {last}; there is nothing behind {after}.")
        begun = time.monotonic()
        with _opened_to_write(out, tenant, after) as file, Progress("exporting") as show:
            async for position, lines in export(log, tenant, after, last):
                file.write(lines)
                show(position - after, last - after)
            file.flush()
        print(f"exported: the log of {tenant} up to position {last}, {last - after} records, {_in(begun)}", file=sys.stderr)


def _opened_to_write(out: str, tenant: str, after: int) -> contextlib.AbstractContextManager[BinaryIO]:
    if out == "-":
        return contextlib.nullcontext(sys.stdout.buffer)
    there = os.path.exists(out)
    if there and not stat.S_ISREG(os.stat(out).st_mode):
        return open(out, "wb")
    return resumed(out, tenant, after) if there and after else written_whole(out)


@click.command("import")
@click.argument("file", default="-")
@click.option(
    "--format", "kind", type=click.Choice(["log", *READERS]), default="log",
    help="log: what export wrote. ndjson, csv: events from elsewhere, an event a line or row.",
)  # fmt: skip
@click.option("--tenant", help="Whose events these are, with ndjson and csv.")
@click.option("--rejects", metavar="FILE", help="Write the lines that were refused there, and not to the terminal.")
@click.option("--wait", type=click.FloatRange(min=0), default=60.0, help="Seconds to wait for a server that is away or full.")
def import_command(file: str, kind: str, tenant: str | None, rejects: str | None, wait: float) -> None:
    """Put a log that was exported into this installation, or events from elsewhere at the end of a log.

    Interrupt it at any moment and start it again: what is there already is compared, or answered duplicate.

    A log keeps its tenant and positions, and nobody else may append to it meanwhile. Events from elsewhere go through the
    door's checks and keep their timestamps; a CSV's first row names session_id, event_type, timestamp, perhaps event_id, and
    the properties. Exit status: 0, 2 when lines were refused, 1 when it could not go on.
    """
    settings = settings_or_exit()
    if kind == "log":
        _ended_by(_restore(settings, file, tenant, wait))
    elif tenant is None:
        sys.exit(f"Say whose events these are: --format {kind} --tenant TENANT.")
    elif rejects and os.path.exists(rejects) and os.path.exists(file) and os.path.samefile(rejects, file):
        sys.exit(f"{rejects} cannot be read and written at once.")
    else:
        _ended_by(_bring_in(settings, file, kind, tenant, rejects, wait))


async def _restore(settings: Settings, path: str, tenant: str | None, wait_seconds: float) -> None:
    begun = time.monotonic()
    async with _log_of(settings) as log:
        restore = LogImport(log, dedup_window_seconds=settings.dedup_window_seconds, wait_seconds=wait_seconds)
        try:
            with _opened_to_read(path) as file, Progress("importing") as show:
                await restore.run(lines_of(file, LINE_LIMIT_BYTES), tenant=tenant, show=show)
        except ENDS as error:
            sys.exit(f"{_said(error)}.{_so_far(restore)}")
        upto = f"the log of {restore.tenant} up to position {restore.position}"
        print(f"imported: {upto}, {restore.written} records written, {restore.compared} were there, {_in(begun)}")


async def _bring_in(settings: Settings, path: str, kind: str, tenant: str, rejects: str | None, wait_seconds: float) -> None:
    keys_of(tenant)
    async with _log_of(settings) as log:
        with _opened_to_read(path) as file, _refusals_to(rejects) as refused, Progress("importing", unit=_unit(file)) as show:
            history = EventImport(log, tenant, refuse=refused, wait_seconds=wait_seconds)
            size = os.fstat(file.fileno()).st_size if file.seekable() else None
            try:
                lines = READERS[kind](file, settings.max_event_bytes)
                await history.run(lines, show=lambda line: show(line if size is None else file.tell(), size))
            except ENDS as error:
                sys.exit(f"{_said(error)}. Up to line {history.line} all is done: {_counts(history)}. Start it again to go on.")
        print(f"imported: {_counts(history)}")
        if history.counts["rejected"] + history.counts["conflict"]:
            sys.exit(REFUSED)


def _so_far(restore: LogImport) -> str:
    if not restore.tenant:
        return " Nothing was written."
    upto = f"Up to position {restore.position} the log of {restore.tenant} is as in the file"
    return f" {upto}; {restore.written or 'no'} records were written."


def _log_of(settings: Settings) -> Log:
    connection = Connection(settings.log_url, budget_seconds=settings.append_timeout_seconds)
    return Log(connection, dedup_window_seconds=settings.dedup_window_seconds, archive_url=settings.archive)


def _opened_to_read(path: str) -> contextlib.AbstractContextManager[BinaryIO]:
    return contextlib.nullcontext(sys.stdin.buffer) if path == "-" else open(path, "rb", buffering=256 * 1024)


def _unit(file: BinaryIO) -> str:
    return "bytes" if file.seekable() else "lines"


@contextlib.contextmanager
def _refusals_to(path: str | None) -> Iterator[Any]:
    """What takes refusals: a file, a line of JSON each, or stderr."""
    if path is None:
        yield lambda refusal: print(_line_of(refusal), file=sys.stderr)
        return
    with open(path, "wb") as file:
        yield lambda refusal: file.write(msgspec.json.encode(refusal) + b"\n")


def _line_of(refusal: Refusal) -> str:
    return f"line {refusal.line}: {refusal.field and f'{refusal.field} '}{refusal.reason}"


def _counts(history: EventImport) -> str:
    return ", ".join(f"{count} {status}" for status, count in history.counts.items())


def _in(begun: float) -> str:
    return f"in {time.monotonic() - begun:.1f} s"


def _said(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return str(error).rstrip(".")


def _ended_by(act: Coroutine[Any, Any, None]) -> None:
    """Run a command; what is wrong with file or surroundings ends it with one sentence."""
    try:
        asyncio.run(act)
    except BrokenPipeError:
        raise  # click ends without a word for a reader that went away
    except ENDS as error:
        sys.exit(f"{_said(error)}.")
    except KeyboardInterrupt:
        sys.exit(130)
