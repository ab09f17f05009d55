"""The OpenAPI document."""

from api.openapi.document import document_of, openapi, operations_of

__all__ = ["document_of", "openapi", "operations_of"]
