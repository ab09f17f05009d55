"""After any fault, the tables hold each accepted event exactly once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEED = os.environ.get("FAULT_SEED", "1")
ROUNDS = os.environ.get("FAULT_ROUNDS", "40")
SECONDS = 600 + 30 * int(ROUNDS)


@pytest.mark.parametrize("server", ["valkey", "redis6"])
def test_every_accepted_event_is_in_the_tables_once_after_any_fault(server: str) -> None:
    status, output = run_faults("--rounds", ROUNDS, "--server", server)

    assert status == 0, output


def test_readers_never_see_fewer_rows_while_a_rebuild_is_killed_rolled_back_or_an_old_database_put_back() -> None:
    status, output = run_faults("--rounds", "3", "--only", "rebuild-killed,roll-back,restore-yesterday")

    assert status == 0, output


def run_faults(*options: str) -> tuple[int, str]:
    """Run the fault test; its status, and its command with its output."""
    command = [sys.executable, "-m", "tests.faults", "--seed", SEED, *options]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert "round 0 " in run.stdout, f"no round began: {run.stderr}"
    return run.returncode, f"{' '.join(command)}\n{run.stdout}\n{run.stderr}"
