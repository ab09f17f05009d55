"""Errors that a person may read.

One base class, and the errors that several packages raise or catch.
"""

from inspect import cleandoc


class PenstockError(Exception):
    """Penstock cannot do this.

    A subclass says why: the first paragraph of its docstring is its default message.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(message or default_message(type(self)))


def default_message(kind: type[PenstockError]) -> str:
    """The first paragraph of an error's docstring, on one line."""
    paragraph, _, _ = cleandoc(kind.__doc__ or kind.__name__).partition("\n\n")
    return " ".join(paragraph.split())


class Retryable(PenstockError):
    """This cannot be done now.

    To try the same again is safe, and may help.
    """


# -- the log -------------------------------------------------------------------------------------------------------------


class LogUnavailable(Retryable):
    """The server of the log did not answer in time:
    what was sent may have been applied or not."""


class NoServer(LogUnavailable):
    """No server accepts connections at an address."""

    def __init__(self, url: str) -> None:
        super().__init__(f"no server at {url}; is `make run` up?")


class LogFull(Retryable):
    """The server's memory is full (maxmemory):
    it takes no more events until it gets more memory."""


class LogBusy(Retryable):
    """Too many events wait to be appended in this process,
    of all tenants together or of this one."""

    def __init__(self, limit: int, value: int) -> None:
        super().__init__()
        self.limit = limit
        self.value = value


class LogRefused(PenstockError):
    """The server answered an append with an error of its own."""


class Gap(PenstockError):
    """Records are missing from a log.

    `first` and `last` are the first and the last missing position.
    """

    def __init__(self, tenant: str, first: int, last: int, reason: str = "") -> None:
        why = f": {reason}" if reason else ""
        super().__init__(f"the log of {tenant} misses the records at positions {first} to {last}{why}")
        self.tenant = tenant
        self.first = first
        self.last = last
        self.reason = reason


# -- tenants -------------------------------------------------------------------------------------------------------------


class BadTenant(PenstockError):
    """A tenant's name is 1 to 64 of A-Z a-z 0-9 . _ -
    and begins with a letter or digit."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class TenantDeleted(PenstockError):
    """The tenant was deleted:
    nothing is taken for it until it is created again (penstock api tenant create)."""


# -- the archive ---------------------------------------------------------------------------------------------------------


class ArchiveUnavailable(Retryable):
    """The archive cannot be read or written now."""


class ArchiveMoved(PenstockError):
    """Another process has written to this tenant's archive meanwhile."""


class DamagedArchive(PenstockError):
    """A segment or manifest is missing, or is not what it should be.

    `last` is the position of the last record that it held, or 0 when that is unknown.
    """

    def __init__(self, path: str, reason: str, last: int = 0) -> None:
        super().__init__(f"{path} {reason}")
        self.last = last
