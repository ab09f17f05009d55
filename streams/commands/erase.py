"""python -m streams erase: forget a person."""

import asyncio
import sys
from datetime import UTC, datetime

import click

from streams.connection import Connection
from streams.control import LogMissing
from streams.erasure.erase import LeaseLost, NoMemoryForRewrite, Rewritten, SubjectErasure
from streams.erasure.subject import Subject
from streams.errors import ArchiveMoved, LogFull, TenantDeleted
from streams.log import Log
from streams.runtime.cli import COMMAND_SECONDS, KNOWN_ERRORS, settings_or_exit
from streams.runtime.progress import Progress
from streams.runtime.settings import Settings

REFUSALS = (LogFull, LogMissing, TenantDeleted, LeaseLost, NoMemoryForRewrite, ArchiveMoved)


class Where(click.ParamType[Subject]):
    """NAME=VALUE."""

    name = "name=value"

    def convert(self, value: object, parameter: click.Parameter | None, context: click.Context | None) -> Subject:
        """The subject that it names."""
        if isinstance(value, Subject):
            return value
        member, equals, wanted = str(value).partition("=")
        if not member or not equals:
            self.fail(f"{value!r} must be like user_id=42", parameter, context)
        return Subject(member, wanted)


@click.command()
@click.argument("tenant")
@click.option("--session", help="Forget the events of this session.")
@click.option("--where", type=Where(), help="Forget the events that have this, such as user_id=42.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def erase(tenant: str, session: str | None, where: Subject | None, yes: bool) -> None:
    """Forget a person: erase the records of TENANT that name them, from the log, its archive and the tables, for good.

    --where compares one of an event's own members (session_id, event_type, event_id), or one of its properties, with a text, or
    the number, true, false or null that it is in JSON. Records that are no events go, too, where any object in their JSON
    has the member with the value.

    A note in the log says which records are erased, under a salted digest. The tables carry it out as they apply events, and
    again whenever they are made again; what is sent again is answered `duplicate`. Positions stay. Interrupt it at any moment
    and start it again. Then `python -m projector vacuum` clears what the database file still holds in pages that are free.
    """
    if (session is None) == (where is None):
        raise click.UsageError("give --session or --where")
    subject = where or Subject("session_id", session or "")
    try:
        sys.exit(asyncio.run(_erase(settings_or_exit(), tenant, subject, yes)))
    except (*KNOWN_ERRORS, *REFUSALS) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


async def _erase(settings: Settings, tenant: str, subject: Subject, yes: bool) -> int:
    async with Log(Connection(settings.log_url, budget_seconds=COMMAND_SECONDS), archive_url=settings.archive) as log:
        if not await log.holds(tenant):
            raise LogMissing(tenant)
        erasure = SubjectErasure(log, tenant, subject)
        async with erasure.lease():
            with Progress("reading") as progress:
                await erasure.find_records(progress)
            found = len(erasure.search.new_positions)
            if found:
                print(_found(tenant, erasure))
                if not yes:
                    click.confirm("Forget them, for good?", abort=True)
                    await erasure.renew_lease()
            elif not erasure.search.has_control_records:
                print(f"No record of {tenant} names it; there is nothing to forget.")
                return 0
            last = await erasure.append_control_records()
            with Progress("copying the log") as progress:
                cleaned = await erasure.rewrite(progress)
            level = await erasure.wait_for_tables(last)
    print(_done(found, last, cleaned))
    print(_of_tables(level))
    return 0


def _found(tenant: str, erasure: SubjectErasure) -> str:
    search = erasure.search
    words = f"{len(search.new_positions)} records of {tenant} are to be erased"
    if search.first_match is None:
        return words
    received = datetime.fromtimestamp(search.first_match.received_at_us / 1_000_000, UTC).isoformat(timespec="seconds")
    return f"{words}; the first that names it is at position {search.first_match.position}, received {received}"


def _done(found: int, last: int, cleaned: Rewritten) -> str:
    words = f"{found} records forgotten; the log says so at position {last}." if found else "Nothing new was to be forgotten."
    words += f"\ncleaned: {cleaned.entries} records on the server, {cleaned.segments} segments of the archive"
    if cleaned.append_only_file is None:
        return f"{words}; the server has no append-only file, or lets nobody have it written anew"
    return words + (
        "; the append-only file was written anew" if cleaned.append_only_file else "; the append-only file could NOT be"
    )


def _of_tables(level: bool) -> str:
    words = "The tables have forgotten, too" if level else "The tables forget when a projector gets there"
    return f"{words}. `python -m projector vacuum` clears what free pages of their file still hold."
