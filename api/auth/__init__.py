"""Who sends a request, and what that sender may do."""

from api.auth.admission import Admission
from api.auth.credentials import credential_of
from api.auth.registry import Registry
from api.auth.tokens import TokenVerifier

__all__ = ["Admission", "Registry", "TokenVerifier", "credential_of"]
