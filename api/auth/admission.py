"""Admission: which tenant a request is for, and whether it may act.

The tenant comes from the X-Tenant-ID header, from a key, or from a token.
"""

from typing import Literal

from msgspec import UNSET, UnsetType

from api.auth.credentials import ROLES, credential_of
from api.auth.new_tenants import NewTenants
from api.auth.registry import Registry
from api.auth.tokens import TokenVerifier
from api.http import Problem
from streams import Log, keys_of
from streams.errors import BadTenant
from streams.runtime import Settings

TENANT_HEADER = b"x-tenant-id"

Act = Literal["append", "read"]


def tenant_in(headers: list[tuple[bytes, bytes]]) -> str | None:
    """The tenant that X-Tenant-ID names, if there is one.

    Raises Problem for several headers, and for a name that could reach another tenant's keys.
    """
    names = [value for name, value in headers if name == TENANT_HEADER]
    if not names:
        return None
    if len(names) > 1:
        raise Problem(400, "tenant-ambiguous", f"send one X-Tenant-ID header; this request has {len(names)}", value=len(names))
    return _valid_tenant(names[0].decode("latin-1"))


def _valid_tenant(tenant: str | None) -> str:
    if tenant is None:
        raise Problem(400, "tenant-missing", "send one X-Tenant-ID header; this request has 0", value=0)
    try:
        keys_of(tenant)
    except BadTenant as error:
        raise Problem(400, "tenant-invalid", str(error), value=tenant) from None
    return tenant


class Admission:
    """Admits requests. With AUTH=open a request only has to name a tenant."""

    def __init__(self, settings: Settings, log: Log, registry: Registry, tokens: TokenVerifier) -> None:
        self._is_open = settings.auth == "open"
        self._new_tenants = NewTenants(log, settings.new_tenants_per_second)
        self._registry = registry
        self._tokens = tokens

    async def admit(self, headers: list[tuple[bytes, bytes]], act: Act, credential: str | UnsetType | None = UNSET) -> str:
        """The tenant of a request, if it is admitted.

        `act` is what the request does to the tenant. Raises Problem, LogUnavailable.

        A foreign format passes the credential that it found in the request. With AUTH=open that is the name of a tenant, which
        counts if no X-Tenant-ID header is sent.
        """
        tenant = tenant_in(headers)
        if self._is_open:
            if tenant is None:
                tenant = _valid_tenant(None if credential is UNSET else credential)
            if act == "append":
                await self._new_tenants.admit(tenant)
            return tenant
        own_tenant, role = await self._identify(credential_of(headers) if credential is UNSET else credential)
        if act not in ROLES[role]:
            raise Problem(403, "role-insufficient", f"the role {role} does not permit to {act}", value=role)
        if tenant is not None and tenant != own_tenant:
            raise Problem(403, "tenant-mismatch", "X-Tenant-ID names another tenant than the credential")
        return own_tenant

    async def _identify(self, credential: str | None) -> tuple[str, str]:
        """The tenant and role of a key or token. Raises Problem."""
        if credential is None:
            raise Problem(401, "credential-missing", "send a key: Authorization: Bearer, Basic user name, or X-Write-Key")
        if credential.count(".") == 2:  # no key has a dot
            claims = await self._tokens.claims(credential)
            return claims.tenant, claims.role
        key = self._registry.find_key(credential)
        if key is None:
            raise Problem(401, "credential-unknown", "this key is unknown or was revoked")
        return key.tenant_id, key.role
