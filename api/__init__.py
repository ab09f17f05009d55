"""The door and the windows: HTTP in, receipts and rows out. Appends through streams, reads through projector's store."""

from api.app import ROUTES, create_app

__all__ = ["ROUTES", "create_app"]
