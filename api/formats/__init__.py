"""Foreign formats: events from the clients of other products.

Each format is one module of pure functions, which `api.ingest.foreign` calls. A format finds the messages and the key in a
request, makes an event of each message, and makes the answer that its clients expect. From there on, the events are treated like
native ones.
"""

from api.formats.format import Answer, ForeignRequest, Format, OpenedRequest, Unreadable
from api.formats.routes import FOREIGN_ROUTES, ForeignRoute

__all__ = ["FOREIGN_ROUTES", "Answer", "ForeignRequest", "ForeignRoute", "Format", "OpenedRequest", "Unreadable"]
