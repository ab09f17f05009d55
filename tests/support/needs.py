"""What a test may need of its machine."""

import os

import pytest


def needs(there: bool, what: str) -> None:
    """A laptop may lack what a test needs; the machine that decides what lands may not."""
    if not there:
        assert "CI" not in os.environ, f"this needs {what}"
        pytest.skip(f"this needs {what}")
