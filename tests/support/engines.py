"""The engines that the suite of the Store protocol runs on. A new engine is a class here and a line in ENGINES."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from projector.store import Store
from projector.store.sqlite import SqliteStore

Open = Callable[..., AbstractContextManager[Store]]


class Engine(Protocol):
    """Makes databases for tests."""

    def open(self, name: str = "tables", **options: Any) -> AbstractContextManager[Store]:
        """Open the database of that name, which is made if it is missing."""

    def make_old(self, store: Store, projection_version: int) -> None:
        """Pretend that the live tables were made by another version of the projection."""


class SqliteEngine:
    """Databases in files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, name: str = "tables", **options: Any) -> AbstractContextManager[Store]:
        """Open the database of that name, which is made if it is missing."""
        return SqliteStore(str(self._folder / f"{name}.db"), cache_mib=8, **options)

    def make_old(self, store: Store, projection_version: int) -> None:
        """Pretend that the live tables were made by another version of the projection."""
        assert isinstance(store, SqliteStore)
        with store.transaction():
            store.execute("UPDATE table_sets SET projection_version = ? WHERE suffix = ''", (projection_version,))


ENGINES: dict[str, Callable[[Path], Engine]] = {"sqlite": SqliteEngine}
