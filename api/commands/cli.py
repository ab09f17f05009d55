"""What the commands of python -m api share: settings and tables opened, what is wrong with either said in one sentence."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from projector import Store, open_store
from streams import keys_of
from streams.errors import BadTenant, PenstockError
from streams.runtime import Settings, load_settings

BUSY_SECONDS = 30.0  # a rebuild that makes its indexes holds others that write


@contextmanager
def opened() -> Iterator[tuple[Settings, Store]]:
    """The settings and the store that they name; errors that a person can act on end the command with their sentence."""
    try:
        settings = load_settings()
        gap_seconds = settings.session_gap_seconds
        with open_store(settings.tables_url, cache_mib=8, busy_seconds=BUSY_SECONDS, session_gap_seconds=gap_seconds) as store:
            yield settings, store
    except PenstockError as error:
        sys.exit(str(error))


def tenant_or_exit(tenant: str) -> str:
    """A tenant's name, or the end of the command."""
    try:
        keys_of(tenant)
    except BadTenant as error:
        sys.exit(f"{tenant!r}: {error}")
    return tenant


def moment(moment_us: int) -> str:
    """A time for a person, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(moment_us // 1_000_000))
