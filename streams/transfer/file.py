"""The file that an export continues."""

import contextlib
import os
from collections.abc import Iterator
from typing import BinaryIO

from streams.errors import PenstockError
from streams.transfer.format import LINE_LIMIT_BYTES, Header, read_log


class OtherFile(PenstockError):
    """The file to continue ends at another position, or is of another log."""

    def __init__(self, path: str, tenant: str, position: int) -> None:
        super().__init__(f"{path} ends at position {position} of the log of {tenant}: that must be the tenant, and --after")


@contextlib.contextmanager
def resumed(path: str, tenant: str, after: int) -> Iterator[BinaryIO]:
    """Open an export to write at its end.

    It must end at position `after` of the tenant's log. A last line that is cut off is removed. Raises OtherFile when it ends
    elsewhere, BadLine when it is no export.
    """
    with open(path, "r+b") as file:
        end_offset, place = 0, ("", 0)
        for item in read_log(_whole_lines(file), to_the_end=False):
            end_offset = file.tell()
            place = (item.tenant, item.after) if isinstance(item, Header) else (place[0], item.position)
        if place != (tenant, after):
            raise OtherFile(path, *place)
        file.truncate(end_offset)
        file.seek(end_offset)
        yield file
        file.flush()
        os.fsync(file.fileno())


def _whole_lines(file: BinaryIO) -> Iterator[bytes]:
    return (line for line in iter(lambda: file.readline(LINE_LIMIT_BYTES), b"") if line.endswith(b"\n"))
