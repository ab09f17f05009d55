"""A command ends with the sentence of an error; Retryable is retried."""

import asyncio
from typing import NoReturn

import pytest
from redis.exceptions import ResponseError

from streams.errors import (
    ArchiveUnavailable,
    Gap,
    LogBusy,
    LogFull,
    LogUnavailable,
    NoServer,
    PenstockError,
    Retryable,
    TenantDeleted,
)
from streams.runtime import Settings, retry, run_command

pytestmark = pytest.mark.anyio


class TooLate(PenstockError):
    """The file was
    removed meanwhile.

    This paragraph is for those who read the code.
    """


class Unexpected(Exception):
    pass


def ended_by(error: BaseException) -> tuple[int, str]:
    """The exit status and the last words of a command that raises an error."""

    async def act(settings: Settings) -> NoReturn:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_command(act)
    code = ended.value.code
    return (1, code) if isinstance(code, str) else (int(code or 0), "")


def test_the_default_message_of_an_error_is_the_first_paragraph_of_its_docstring() -> None:
    assert str(TooLate()) == "The file was removed meanwhile."
    assert str(TooLate("removed at noon")) == "removed at noon"
    assert str(TenantDeleted()).startswith("The tenant was deleted: nothing is taken for it until it is created again")


def test_an_error_carries_its_values() -> None:
    gap, busy = Gap("acme", 3, 5), LogBusy(limit=10, value=11)

    assert (gap.tenant, gap.first, gap.last) == ("acme", 3, 5)
    assert (busy.limit, busy.value) == (10, 11)
    assert "positions 3 to 5" in str(gap) and str(busy)


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (TooLate(), (1, "The file was removed meanwhile.")),
        (LogFull(), (1, "The server's memory is full (maxmemory): it takes no more events until it gets more memory.")),
        (LogUnavailable("two\nlines"), (1, "two lines.")),
        (FileNotFoundError(2, "No such file or directory", "/backups/x"), (1, "/backups/x: No such file or directory.")),
        (OSError(28, "No space left on device"), (1, "No space left on device.")),
        (ResponseError("NOPERM no permission"), (1, "NOPERM no permission.")),
        (KeyboardInterrupt(), (130, "")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_command_ends_with_one_sentence(error: BaseException, ending: tuple[int, str]) -> None:
    assert ended_by(error) == ending


def test_a_bug_and_a_closed_pipe_are_raised_unchanged() -> None:
    for error in (Unexpected("a bug"), BrokenPipeError()):
        with pytest.raises(type(error)):
            ended_by(error)


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (2, 2)])
def test_a_command_ends_with_the_status_that_it_returns(returned: int | None, status: int) -> None:
    async def act(settings: Settings) -> int | None:
        return returned

    with pytest.raises(SystemExit) as ended:
        run_command(act)

    assert ended.value.code == status


@pytest.mark.parametrize("error", [LogUnavailable(), NoServer("unix:///s"), LogFull(), LogBusy(1, 2), ArchiveUnavailable()])
async def test_a_retryable_error_is_retried(error: Retryable) -> None:
    errors = [error, error]

    async def act() -> str:
        if errors:
            raise errors.pop()
        return "done"

    assert await retry(act, seconds=5) == "done"


async def test_other_errors_are_not_retried_and_retries_end() -> None:
    calls = []

    async def act(error: PenstockError) -> None:
        calls.append(error)
        raise error

    with pytest.raises(TenantDeleted):
        await retry(lambda: act(TenantDeleted()), seconds=5)
    assert len(calls) == 1
    async with asyncio.timeout(5):
        with pytest.raises(LogFull):
            await retry(lambda: act(LogFull()), seconds=0.2)
    assert len(calls) > 2
