"""Every key's name and its partition. All keys of a tenant share one hash tag, so one script may touch them all.

{p}:log:TENANT           stream   the tenant's log; entry ids are <position>-0
{p}:dedup:TENANT:HASH     string   position/digest/split of the first event of that name, for the window
{p}:suppressed:TENANT     hash     salted names of events that were forgotten -> position, and their salt; for ever
{p}:usage:TENANT         hash     what the door counted of the tenant, and what is left of its limits
{p}:tenants              set      every tenant that has a log, or whose events were all rejected
{p}:archiving:TENANT     string   who archives or cleans the tenant's log now; a lease
{p}:copy:TENANT          stream   the log while it is cleaned, until it takes the log's place
{p}:deleted              set      digests of tenants that were erased: nothing is taken for them
{p}:groups               set      groups that a new log gets at its first event
{p}:ready:GROUP          zset     tenants with records that GROUP has not applied; score = when they may be taken
{p}:leases:GROUP         hash     tenant -> the projector that has taken it
"""

import hashlib
import re
import zlib
from functools import lru_cache

import msgspec

from streams.errors import BadTenant

PARTITIONS = 64
TENANT_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
READY_CHANNEL = "penstock:ready"

_tenant = re.compile(TENANT_PATTERN).fullmatch


class TenantKeys(msgspec.Struct, frozen=True):
    """The keys of one tenant, its partition, and the digest that stands for its name where that must not be kept."""

    partition: int
    log: str
    dedup: str
    suppressed: str
    usage: str
    archiving: str
    copy: str
    tenants: str
    groups: str
    deleted: str
    digest: str


@lru_cache(maxsize=16_384)  # 700 bytes for the longest names, in every process
def keys_of(tenant: str) -> TenantKeys:
    """The keys of one tenant. Raises BadTenant before any key is built from a name that could reach another's."""
    if _tenant(tenant) is None:
        raise BadTenant(tenant)
    partition = zlib.crc32(tenant.encode()) % PARTITIONS
    return TenantKeys(
        partition=partition,
        log=f"{log_prefix(partition)}{tenant}",
        dedup=f"{{{partition}}}:dedup:{tenant}:",
        suppressed=f"{{{partition}}}:suppressed:{tenant}",
        usage=f"{usage_prefix(partition)}{tenant}",
        archiving=f"{{{partition}}}:archiving:{tenant}",
        copy=f"{{{partition}}}:copy:{tenant}",
        tenants=tenants_key(partition),
        groups=groups_key(partition),
        deleted=deleted_key(partition),
        digest=hashlib.sha256(tenant.encode()).hexdigest(),
    )


def log_prefix(partition: int) -> str:
    """What stands before the tenant in its log's key."""
    return f"{{{partition}}}:log:"


def usage_prefix(partition: int) -> str:
    """What stands before the tenant in the key of its usage."""
    return f"{{{partition}}}:usage:"


def deleted_key(partition: int) -> str:
    """The set of digests of tenants that were erased."""
    return f"{{{partition}}}:deleted"


def tenants_key(partition: int) -> str:
    """The set of tenants that the door has heard of."""
    return f"{{{partition}}}:tenants"


def groups_key(partition: int) -> str:
    """The set of groups that a new log gets."""
    return f"{{{partition}}}:groups"


def ready_prefix(partition: int) -> str:
    """What stands before the group in the key of its ready set."""
    return f"{{{partition}}}:ready:"


def ready_key(partition: int, group: str) -> str:
    """The sorted set of tenants that a group is behind on."""
    return ready_prefix(partition) + group


def leases_key(partition: int, group: str) -> str:
    """The hash of who has taken which tenant."""
    return leases_prefix(partition) + group


def leases_prefix(partition: int) -> str:
    """What stands before the group in the key of its leases."""
    return f"{{{partition}}}:leases:"
