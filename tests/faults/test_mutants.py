"""The fault test catches mistakes planted in a copy of the code.

A text that the code does not hold any more fails tests/test_architecture.py: plant the mistake where the code has moved.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.faults.mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
ROUNDS = 3


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_planted_mistake_is_caught(mutant: Mutant) -> None:
    with tempfile.TemporaryDirectory(prefix="pm-") as folder:
        copy_code(Path(folder))
        for file, old, new in mutant.edits:
            path = Path(folder, file)
            text = path.read_text()
            path.write_text(text.replace(old, new))

        status, output = run_faults(Path(folder), mutant.faults)

    assert status == 1 and re.search(mutant.complaint, output.partition("VIOLATED")[2]), output


@pytest.mark.parametrize("faults", dict.fromkeys(mutant.faults for mutant in MUTANTS))
def test_the_code_without_a_mistake_passes(faults: str) -> None:
    with tempfile.TemporaryDirectory(prefix="pm-") as folder:
        copy_code(Path(folder))

        status, output = run_faults(Path(folder), faults)

    assert status == 0, output


def copy_code(folder: Path) -> None:
    """Copy the packages and the Procfile, to be changed and started elsewhere."""
    for package in ("streams", "projector", "api"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Procfile", folder)


def run_faults(code: Path, faults: str) -> tuple[int, str]:
    """Run a few rounds with faults; the status and the output."""
    command = [
        sys.executable,
        "-m",
        "tests.faults",
        "--rounds",
        str(ROUNDS),
        "--seed",
        "1",
        "--code",
        str(code),
        "--only",
        faults,
    ]
    environment = os.environ | {"TMPDIR": str(code)}  # where a system that violated an invariant leaves its files
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert "round 0 " in run.stdout, f"no round began: {run.stderr}"
    return run.returncode, run.stdout + run.stderr
