"""`penstock streams erase`: a data subject leaves the log."""

from datetime import UTC, datetime

import click

from streams.commands.cli import open_log
from streams.control import LogMissing
from streams.erasure.erase import Rewritten, SubjectErasure
from streams.erasure.subject import Subject
from streams.runtime.cli import run_command
from streams.runtime.progress import Progress
from streams.runtime.settings import Settings


class Where(click.ParamType[Subject]):
    """NAME=VALUE."""

    name = "name=value"

    def convert(self, value: object, parameter: click.Parameter | None, context: click.Context | None) -> Subject:
        """The subject that it names."""
        if isinstance(value, Subject):
            return value
        member, equals, text = str(value).partition("=")
        if not member or not equals:
            self.fail(f"{value!r} must be like user_id=42", parameter, context)
        return Subject(member, text)


@click.command()
@click.argument("tenant")
@click.option("--session", help="Erase the events of this session.")
@click.option("--where", type=Where(), help="Erase the events that have this value, such as user_id=42.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def erase(tenant: str, session: str | None, where: Subject | None, yes: bool) -> None:
    """Erase a data subject: remove its records for good.

    The records of TENANT that name the subject leave the log, its archive and the tables. --where compares a member of an event
    (session_id, event_type, event_id), or one of its properties, with a text, or with the number, true, false or null that the
    text is in JSON. A record that is no event is erased too, when any object in its JSON has the member with that value.

    A control record in the log says which records are erased, under a salted digest. The tables carry it out when they apply it,
    and again whenever they are rebuilt. An erased event that is sent again is answered `duplicate`. Positions stay. Interrupt it
    at any moment and start it again. Afterwards `penstock projector vacuum` clears the free pages of the database file.
    """
    if (session is None) == (where is None):
        raise click.UsageError("give --session or --where")
    subject = where or Subject("session_id", session or "")
    run_command(lambda settings: _erase(settings, tenant, subject, yes))


async def _erase(settings: Settings, tenant: str, subject: Subject, yes: bool) -> None:
    async with open_log(settings) as log:
        if not await log.holds(tenant):
            raise LogMissing(tenant)
        erasure = SubjectErasure(log, tenant, subject)
        async with erasure.lease():
            with Progress("reading") as progress:
                await erasure.find_records(progress)
            count = len(erasure.search.new_positions)
            if count:
                print(_question(tenant, erasure))
                if not yes:
                    click.confirm("Erase them, for good?", abort=True)
                    await erasure.renew_lease()
            elif not erasure.search.has_control_records:
                print(f"No record of {tenant} names it; there is nothing to erase.")
                return
            last = await erasure.append_control_records()
            with Progress("copying the log") as progress:
                rewritten = await erasure.rewrite(progress)
            applied = await erasure.wait_for_tables(last)
    print(_summary(count, last, rewritten))
    print(_tables_summary(applied))


def _question(tenant: str, erasure: SubjectErasure) -> str:
    search = erasure.search
    words = f"{len(search.new_positions)} records of {tenant} are to be erased"
    if search.first_match is None:
        return words
    received = datetime.fromtimestamp(search.first_match.received_at_us / 1_000_000, UTC).isoformat(timespec="seconds")
    return f"{words}; the first that names it is at position {search.first_match.position}, received {received}"


def _summary(count: int, last: int, rewritten: Rewritten) -> str:
    words = f"{count} records erased; the log says so at position {last}." if count else "No further record was to be erased."
    words += f"\ncleaned: {rewritten.entries} records on the server, {rewritten.segments} segments of the archive"
    if rewritten.append_only_file is None:
        return f"{words}; the server has no append-only file, or does not allow that it is rewritten"
    return words + (
        "; the append-only file was rewritten" if rewritten.append_only_file else "; the append-only file could NOT be"
    )


def _tables_summary(applied: bool) -> str:
    words = "The tables have erased them too" if applied else "The tables erase them when a projector applies that record"
    return f"{words}. `penstock projector vacuum` clears the free pages of their file."
