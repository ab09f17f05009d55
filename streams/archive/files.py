"""Files of the archive, in a directory or a bucket."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from streams.archive.arrow import arrow
from streams.errors import ArchiveUnavailable
from streams.keys import keys_of
from streams.runtime.files import written_whole

PREFIX = "tenant="


class Files:
    """The files behind a URL: file:///…, s3://…, gs://….

    Each tenant has a folder. Every method may raise ArchiveUnavailable.
    """

    def __init__(self, url: str) -> None:
        with unavailable():
            self._system, self._root = arrow().fs.FileSystem.from_uri(url)
        self._is_local = isinstance(self._system, arrow().fs.LocalFileSystem)

    def path(self, tenant: str, *names: str) -> str:
        """The path of a tenant's folder, or of a file in it. Raises BadTenant."""
        keys_of(tenant)
        return "/".join((self._root.rstrip("/"), f"{PREFIX}{tenant}", *names))

    def tenants(self) -> list[str]:
        """Every tenant that has a folder."""
        with unavailable():
            infos = self._system.get_file_info(arrow().fs.FileSelector(self._root, allow_not_found=True))
        return [info.base_name.removeprefix(PREFIX) for info in infos if info.base_name.startswith(PREFIX)]

    def of_tenant(self, tenant: str) -> list[Any]:
        """The pyarrow.fs.FileInfo of each file of a tenant."""
        fs = arrow().fs
        with unavailable():
            infos = self._system.get_file_info(fs.FileSelector(self.path(tenant), recursive=True, allow_not_found=True))
        return [info for info in infos if info.type is fs.FileType.File]

    def get(self, path: str) -> bytes | None:
        """The content of a file, or None."""
        try:
            with unavailable(), self._system.open_input_stream(path) as stream:
                return bytes(stream.readall())
        except FileNotFoundError:
            return None

    def put(self, path: str, content: bytes) -> None:
        """Write a file whole or not at all; it is on disk when this returns."""
        with unavailable():
            if not self._is_local:
                with self._system.open_output_stream(path) as stream:
                    stream.write(content)
                return
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with written_whole(path) as file:
                file.write(content)

    def remove(self, path: str) -> None:
        """Remove a file, if it is there."""
        with unavailable(), contextlib.suppress(FileNotFoundError):
            self._system.delete_file(path)

    def remove_folder(self, tenant: str) -> None:
        """Remove the empty folder of a tenant. A bucket has none."""
        if self._is_local:
            os.rmdir(self.path(tenant))


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
