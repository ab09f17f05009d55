"""Console blocks of pages: commands, and how their output is compared."""

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.support.documentation import blocks

PROMPT = "$ "
ANY_LINES = "…"  # a line of its own: any number of lines may stand here

# What differs from run to run, and what stands in its place when two outputs are compared.
VOLATILE = (
    (re.compile(r"^\d\d:\d\d:\d\d (?=\w+ +\| )", re.MULTILINE), "<time> "),  # before each line of a process of `make run`
    (re.compile(r"^[a-z ]+: [\d,]+ of [\d,]+ (records|bytes)\n", re.MULTILINE), ""),  # progress, which is a bar in a terminal
    (re.compile(r'(?<="received_at":")[^"]+'), "<time>"),
    (re.compile(r'(?<="received_at_us":)\d+'), "<time>"),
    (re.compile(r"(?<=\t)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(\+00:00|Z)(?=\t)"), "<time>"),  # of a list with tabs
    (re.compile(r"(?<=received)(:? )\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)"), r"\1<time>"),
    (re.compile(r'(?<="digest":")[0-9a-f]{16}'), "<digest>"),  # of a record, in which its time of arrival counts
    (re.compile(r"(?<=projector:)[0-9a-f]{16}"), "<database>"),
    (re.compile(r"(?<=the tables, )[\d,]+(?= bytes)"), "<size>"),
    # of `penstock streams erase`, which waits some seconds for a projector
    (re.compile(r"The tables (have erased them too|erase them when a projector applies that record)\."), "<tables>"),
    (re.compile(r"\d+\.\d s\b"), "<seconds>"),
    (re.compile(r"[\d,]+ records/s"), "<rate>"),
    (re.compile(r"(?<=ps_[wra]_)[\w-]{32}"), "<key>"),
    (re.compile(r"(?<=localhost:)\d+|(?<=127\.0\.0\.1:)\d+"), "<port>"),
)


class Step(NamedTuple):
    """A command of a page and the output that the page shows."""

    command: str
    output: str


def steps(text: str) -> list[Step]:
    """The commands of a page's console blocks, in order."""
    return [step for block in blocks(text) if block.language == "console" for step in _steps(block.text)]


def _steps(block: str) -> Iterator[Step]:
    command, output = "", ""
    for line in block.splitlines():
        if command and not _is_whole(command):
            command += f"\n{line}"
        elif line.startswith(PROMPT):
            if command:
                yield Step(command, output)
            command, output = line.removeprefix(PROMPT), ""
        else:
            assert command, f"a console block begins with a command, not with {line!r}"
            output += f"{line}\n"
    if command:
        yield Step(command, output)


def _is_whole(command: str) -> bool:
    """Whether every quotation of a command is closed."""
    try:
        shlex.split(command)
    except ValueError:
        return False
    return True


def matches(shown: str, printed: str) -> bool:
    """Whether a command printed what a page shows.

    JSON may be broken into lines on the page.
    """
    shown, printed = steady(shown), steady(printed)
    as_json = _json(printed)
    if as_json is not None and _json(shown) == as_json:
        return True
    parts = [re.escape(part) for part in re.split(rf"^{ANY_LINES}\n", shown, flags=re.MULTILINE)]
    return re.fullmatch("(?:.*\n)*".join(parts), printed) is not None


def steady(output: str) -> str:
    """An output without what differs from run to run."""
    for pattern, name in VOLATILE:
        output = pattern.sub(name, output)
    return "\n".join(line.rstrip() for line in output.splitlines()).strip("\n") + "\n"


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
