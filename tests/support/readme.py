"""What README.md lists."""

import re

from tests.support.http import ROOT


def first_cells(pattern: str) -> set[str]:
    """The backticked first cells of README's tables that look like the pattern."""
    found = re.findall(r"^\|\s*`([^`]+)`\s*\|", (ROOT / "README.md").read_text(), re.MULTILINE)
    return {cell for cell in found if re.fullmatch(pattern, cell)}
