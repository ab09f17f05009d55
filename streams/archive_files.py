"""Files of the archive in a directory, and what can go wrong with files and buckets."""

import contextlib
import os
from collections.abc import Iterator

from streams.manifest import ArchiveUnavailable


def put_locally(path: str, content: bytes) -> None:
    """Write a file, whole or not at all; on disk when this returns."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    temporary = f"{path}.tmp"  # one archiver at a time has this tenant
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def unavailable() -> Iterator[None]:
    """Errors of files and buckets as ours; that a file is not there passes."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise ArchiveUnavailable(str(error)) from error
