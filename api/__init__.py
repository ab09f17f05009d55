"""The HTTP API: the ingest endpoints and the query endpoints.

It appends events through `streams`, and reads the tables through the store of `projector`.
"""

from api.app import ROUTES, create_app

__all__ = ["ROUTES", "create_app"]
