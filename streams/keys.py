"""The name of every key, and its partition.

All keys of a tenant share a hash tag, its partition, so one script may touch them all.

{p}:log:TENANT            stream   the tenant's log; entry ids are <position>-0
{p}:dedup:TENANT:HASH     string   position/digest/hash_parts of the events of that hash, for the deduplication window
{p}:suppressed:TENANT     hash     salted identities of erased events -> position, and the salt; they do not expire
{p}:usage:TENANT          hash     counts of events that were not accepted, and what is left of the limits
{p}:archive-lease:TENANT  string   the process that archives the tenant's log or erases from it, as long as its lease lasts
{p}:rewrite:TENANT        stream   the copy of the log that erasure makes, until it becomes the log
{p}:tenants               set      every tenant that has a log, or whose events were all refused
{p}:deleted               set      digests of deleted tenants: nothing is appended for them
{p}:groups                set      the groups that a new log gets at its first event
{p}:ready:GROUP           zset     the ready queue: tenants with unapplied records; score = when they may be leased
{p}:leases:GROUP          hash     tenant -> lease owner, the projector that has leased it
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

_is_tenant = re.compile(TENANT_PATTERN).fullmatch


class TenantKeys(msgspec.Struct, frozen=True):
    """The keys of a tenant, its partition, and its digest.

    The digest stands for its name where the name must not be kept.
    """

    partition: int
    log: str
    dedup: str
    suppressed: str
    usage: str
    archive_lease: str
    rewrite: str
    tenants: str
    groups: str
    deleted: str
    digest: str


@lru_cache(maxsize=16_384)  # 700 bytes for the longest names, in every process
def keys_of(tenant: str) -> TenantKeys:
    """The keys of a tenant.

    Raises BadTenant, so no key is made from a name that could reach another tenant's keys.
    """
    if _is_tenant(tenant) is None:
        raise BadTenant(tenant)
    partition = zlib.crc32(tenant.encode()) % PARTITIONS
    return TenantKeys(
        partition=partition,
        log=f"{log_prefix(partition)}{tenant}",
        dedup=f"{{{partition}}}:dedup:{tenant}:",
        suppressed=f"{{{partition}}}:suppressed:{tenant}",
        usage=f"{usage_prefix(partition)}{tenant}",
        archive_lease=f"{{{partition}}}:archive-lease:{tenant}",
        rewrite=f"{{{partition}}}:rewrite:{tenant}",
        tenants=tenants_key(partition),
        groups=groups_key(partition),
        deleted=deleted_key(partition),
        digest=hashlib.sha256(tenant.encode()).hexdigest(),
    )


def queue_arguments(tenant: str) -> tuple[str, str, str, int, str]:
    """The first arguments of each script that puts a tenant into the ready queues."""
    keys = keys_of(tenant)
    return tenant, keys.digest, ready_prefix(keys.partition), keys.partition, READY_CHANNEL


def log_prefix(partition: int) -> str:
    """The key of a log, without the tenant."""
    return f"{{{partition}}}:log:"


def usage_prefix(partition: int) -> str:
    """The key of a tenant's usage, without the tenant."""
    return f"{{{partition}}}:usage:"


def deleted_key(partition: int) -> str:
    """The set of digests of deleted tenants."""
    return f"{{{partition}}}:deleted"


def tenants_key(partition: int) -> str:
    """The set of tenants."""
    return f"{{{partition}}}:tenants"


def groups_key(partition: int) -> str:
    """The set of registered groups."""
    return f"{{{partition}}}:groups"


def ready_prefix(partition: int) -> str:
    """The key of a ready queue, without the group."""
    return f"{{{partition}}}:ready:"


def ready_key(partition: int, group: str) -> str:
    """The ready queue of a group: the tenants with unapplied records."""
    return ready_prefix(partition) + group


def leases_prefix(partition: int) -> str:
    """The key of leases, without the group."""
    return f"{{{partition}}}:leases:"


def leases_key(partition: int, group: str) -> str:
    """The leases of a group: tenant -> lease owner."""
    return leases_prefix(partition) + group
