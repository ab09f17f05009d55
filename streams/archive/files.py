"""Files of the archive, and the errors of files and buckets."""

import contextlib
import os
from collections.abc import Iterator

from streams.errors import ArchiveUnavailable
from streams.runtime.files import written_whole


def put_locally(path: str, content: bytes) -> None:
    """Write a file whole or not at all; it is on disk when this returns."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with written_whole(path) as file:
        file.write(content)


@contextlib.contextmanager
def unavailable() -> Iterator[None]:
    """Raise ArchiveUnavailable for an error of files or buckets.

    FileNotFoundError passes.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise ArchiveUnavailable(str(error)) from error
