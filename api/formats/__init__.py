"""Foreign formats: requests of other products' clients, made into events.

Each format is one pure module; `api.ingest.foreign` calls it. A format opens a request, which gives its messages and the key in
it; makes an event of each message; and knows the answer that its clients expect. Everything after that is the same as for native
events.
"""

from api.formats.format import Answer, ForeignRequest, Format, OpenedRequest, Unreadable
from api.formats.routes import FOREIGN_ROUTES, ForeignRoute

__all__ = ["FOREIGN_ROUTES", "Answer", "ForeignRequest", "ForeignRoute", "Format", "OpenedRequest", "Unreadable"]
