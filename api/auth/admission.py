"""Which tenant a request speaks for, and whether it may do what it asks: by its header, its key, or its token."""

from api.auth.credentials import ROLES, credential_of
from api.auth.new_tenants import NewTenants
from api.auth.registry import Registry
from api.auth.tokens import TokenVerifier
from api.http.problems import Problem
from streams import BadTenant, Log, Settings, keys_of

TENANT_HEADER = b"x-tenant-id"


def tenant_named(headers: list[tuple[bytes, bytes]]) -> str | None:
    """The tenant that X-Tenant-ID names, None without one. A name that could reach another's keys is refused here."""
    named = [value for key, value in headers if key == TENANT_HEADER]
    if not named:
        return None
    if len(named) > 1:
        raise Problem(400, "tenant-ambiguous", f"one X-Tenant-ID header is needed; there are {len(named)}", value=len(named))
    return _checked(named[0].decode("latin-1"))


def _name_in(credential: str | None) -> str:
    if credential is None:
        raise Problem(400, "tenant-missing", "one X-Tenant-ID header is needed; there are 0", value=0)
    return _checked(credential)


def _checked(tenant: str) -> str:
    try:
        keys_of(tenant)
    except BadTenant as error:
        raise Problem(400, "tenant-invalid", str(error), value=tenant) from None
    return tenant


class Admission:
    """Lets requests in. In open mode the X-Tenant-ID header alone says who writes and reads."""

    def __init__(self, settings: Settings, log: Log, registry: Registry, tokens: TokenVerifier) -> None:
        self._open = settings.auth == "open"
        self._newcomers = NewTenants(log, settings.new_tenants_per_second)
        self._registry = registry
        self._tokens = tokens

    async def admit(self, headers: list[tuple[bytes, bytes]], act: str) -> str:
        """The tenant that a request may `append` to or `read`. Raises Problem, LogUnavailable."""
        return await self.admit_as(headers, act, None if self._open else credential_of(headers))

    async def admit_as(self, headers: list[tuple[bytes, bytes]], act: str, credential: str | None) -> str:
        """The same with a credential from wherever it stood. In open mode it is the tenant's name, if no header says it."""
        named = tenant_named(headers)
        if self._open:
            tenant = _name_in(credential) if named is None else named
            if act == "append":
                await self._newcomers.admit(tenant)
            return tenant
        tenant, role = await self._who(credential)
        if act not in ROLES[role]:
            raise Problem(403, "role-insufficient", f"who has the role {role} may not {act}", value=role)
        if named is not None and named != tenant:
            raise Problem(403, "tenant-mismatch", "X-Tenant-ID names another tenant than the credential")
        return tenant

    async def _who(self, credential: str | None) -> tuple[str, str]:
        """The tenant and role of a request's key or token."""
        if credential is None:
            raise Problem(401, "credential-missing", "a key is needed: Authorization: Bearer, Basic user name, or X-Write-Key")
        if credential.count(".") == 2:  # no key has a dot
            claims = await self._tokens.claims(credential)
            return claims.tenant, claims.role
        key = self._registry.find_key(credential)
        if key is None:
            raise Problem(401, "credential-unknown", "this key is unknown or was revoked")
        return key.tenant_id, key.role
