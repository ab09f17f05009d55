"""A long command says now and then how far it is: one line a tenth, or a million where nobody knows how many there are."""

import os
import pty
import subprocess
import sys

import pytest

from streams.runtime import Progress
from tests.support.commands import clean


def test_outside_of_a_terminal_a_tenth_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("counting", unit="bytes") as show:
        for done in range(0, 101):
            show(done, 100)

    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [f"counting: {done} of 100 bytes" for done in range(0, 101, 10)]


def test_where_nobody_knows_how_many_there_are_a_million_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("counting") as show:
        for done in range(0, 2_500_000, 100_000):
            show(done, None)

    assert capsys.readouterr().err.splitlines() == [f"counting: {done} records" for done in (0, 1_000_000, 2_000_000)]


def test_nothing_to_do_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("counting") as show:
        show(0, 0)

    assert capsys.readouterr().err == "counting: 0 of 0 records\n"


def test_a_terminal_gets_a_bar() -> None:
    code = "from streams.runtime import Progress\nwith Progress('counting') as show:\n  show(1, 3); show(3, 3)"
    terminal, end = pty.openpty()
    done = subprocess.run([sys.executable, "-c", code], env=clean() | {"TERM": "xterm"}, stderr=end, timeout=20)
    os.close(end)

    shown = os.read(terminal, 65_536)
    os.close(terminal)
    assert done.returncode == 0
    assert b"counting" in shown and b"3/3" in shown and b"records/s" in shown and b"counting: " not in shown


def test_a_process_that_shows_nothing_does_not_carry_what_a_terminal_needs() -> None:
    code = "import sys, streams; sys.exit('rich.progress' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], env=clean(), timeout=20).returncode == 0
