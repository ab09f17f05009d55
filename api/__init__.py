"""The HTTP API: the ingest endpoints and the query endpoints.

It appends events through `streams`, and reads the tables through the store of `projector`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from api.app import ROUTES, create_app

__all__ = ["ROUTES", "create_app"]


def __getattr__(name: str) -> Any:
    """Load the application on first use: other packages' commands do without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from api import app

    return getattr(app, name)
