"""A long command shows its progress.

One line for each tenth, or for each million where the total is unknown.
"""

import os
import pty
import subprocess
import sys

import pytest

from streams.runtime import Progress
from tests.support.commands import clean


def test_outside_of_a_terminal_each_tenth_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("counting", unit="bytes") as show:
        for count in range(0, 101):
            show(count, 100)

    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [f"counting: {count} of 100 bytes" for count in range(0, 101, 10)]


def test_without_a_total_each_million_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("counting") as show:
        for count in range(0, 2_500_000, 100_000):
            show(count, None)

    assert capsys.readouterr().err.splitlines() == [f"counting: {count} records" for count in (0, 1_000_000, 2_000_000)]


def test_no_work_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("counting") as show:
        show(0, 0)

    assert capsys.readouterr().err == "counting: 0 of 0 records\n"


def test_a_terminal_gets_a_bar() -> None:
    code = "from streams.runtime import Progress\nwith Progress('counting') as show:\n  show(1, 3); show(3, 3)"
    terminal, end = pty.openpty()
    ended = subprocess.run([sys.executable, "-c", code], env=clean() | {"TERM": "xterm"}, stderr=end, timeout=20)
    os.close(end)

    shown = os.read(terminal, 65_536)
    os.close(terminal)
    assert ended.returncode == 0
    assert b"counting" in shown and b"3/3" in shown and b"records/s" in shown and b"counting: " not in shown


def test_a_process_that_shows_nothing_does_not_load_rich() -> None:
    code = "import sys, streams; sys.exit('rich.progress' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], env=clean(), timeout=20).returncode == 0
