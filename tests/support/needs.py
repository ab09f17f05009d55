"""What a test may need of its machine."""

import os

import pytest


def needs(is_there: bool, what: str) -> None:
    """Skip a test whose machine lacks what it needs; in CI it fails."""
    if not is_there:
        assert "CI" not in os.environ, f"this needs {what}"
        pytest.skip(f"this needs {what}")
