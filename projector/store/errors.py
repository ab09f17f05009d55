"""The errors that every engine of the tables raises."""

from streams.errors import PenstockError, Retryable


class StoreUnavailable(Retryable):
    """The tables cannot be read or written now: locked, disk full, or an I/O error."""


class StoreReplaced(StoreUnavailable):
    """The database file was removed, or another was put in its place: it must be opened again."""


class OtherProjection(PenstockError):
    """The tables were made by another version of the projection; this process leaves them alone."""

    def __init__(self, tables_version: int, own_version: int) -> None:
        super().__init__(
            f"the tables were made by projection version {tables_version}, this is version {own_version}: "
            "run `penstock projector rebuild` with the version that shall serve, or `rollback` with the version before"
        )


class RebuildRunning(PenstockError):
    """Another rebuild or rollback of these tables is running."""


class OutputExists(PenstockError):
    """The file that is to be made exists already."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} exists already; nothing is overwritten")


class NotACopy(PenstockError):
    """A file is no database of tables."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} is no copy of tables: {reason}")


class TablesNotEmpty(PenstockError):
    """The tables have rows that are not those of the copy."""

    def __init__(self, path: str, table: str) -> None:
        super().__init__(f"{path} has rows in {table}, and they are not those of the copy; nothing is overwritten")
