"""The ingest endpoints: a body becomes events, events become receipts."""

from api.ingest.foreign import PostForeign
from api.ingest.native import PostEvents

__all__ = ["PostEvents", "PostForeign"]
