"""What the suite of the scripts shares."""

import pytest

from tests.support.scripts import Scripts


@pytest.fixture
def scripts() -> Scripts:
    return Scripts()
