"""Fixtures of the suite of the Store protocol.

It runs on every engine in tests/support/engines.py.
"""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from projector.store import Store
from tests.support.engines import ENGINES, Engine, Open


@pytest.fixture(params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    """An engine that makes its databases in the folder of the test."""
    return ENGINES[request.param](tmp_path)


@pytest.fixture
def open_database(engine: Engine) -> Open:
    """Opens a database of the engine by name.

    The same name opens the same database.
    """
    return engine.open


@pytest.fixture
def tables(open_database: Open) -> Iterator[Store]:
    """An empty store."""
    with open_database() as store:
        yield store


@pytest.fixture
def other_tables(open_database: Open) -> Iterator[Store]:
    """A second empty store, on another database."""
    with open_database("other") as store:
        yield store


@pytest.fixture
def new_tenant() -> Callable[[], str]:
    """Returns a tenant that no earlier example used."""
    numbers = count()
    return lambda: f"tenant-{next(numbers)}"
