"""A new file that appears at its path complete, or not at all."""

import os

from projector.store.errors import OutputExists


def publish(part: str, path: str) -> None:
    """Give a complete file its name.

    Raises OutputExists when another file has the name.
    """
    try:
        os.link(part, path)
    except FileExistsError:
        raise OutputExists(path) from None
    except OSError:  # a file system without links
        if os.path.lexists(path):
            raise OutputExists(path) from None
        os.rename(part, path)
