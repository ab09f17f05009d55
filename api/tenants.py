"""Which tenant a request speaks for. Today the X-Tenant-ID header says so; keys and tokens will be looked up here."""

from api.problems import Problem
from streams import BadTenant, keys_of

TENANT_HEADER = b"x-tenant-id"


def tenant_of(headers: list[tuple[bytes, bytes]]) -> str:
    """The tenant of a request; exactly one header names it."""
    named = [value for key, value in headers if key == TENANT_HEADER]
    if len(named) != 1:
        code = "tenant-ambiguous" if named else "tenant-missing"
        raise Problem(400, code, f"one X-Tenant-ID header is needed; there are {len(named)}", value=len(named))
    tenant = named[0].decode("latin-1")
    try:
        keys_of(tenant)
    except BadTenant as error:
        raise Problem(400, "tenant-invalid", str(error), value=tenant) from None
    return tenant
