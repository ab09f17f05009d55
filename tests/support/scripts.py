"""The Lua scripts on fakeredis: keys and arguments in, the reply out."""

import hashlib
from typing import Any, NamedTuple

import fakeredis

from streams.connection import script
from streams.keys import READY_CHANNEL, TenantKeys, keys_of, leases_key, leases_prefix, log_prefix, ready_key, ready_prefix

TENANT = "acme"
WINDOW_MS = 60_000
HOUR_MS = 3_600_000
SHA1HEX = "redis.sha1hex = function(text) return 'sha1 of ' .. text end\n"  # fakeredis has none


class Entry(NamedTuple):
    """An event as a script takes it; `name` stands for its identity."""

    name: str
    digest: str = "aa"
    hash_parts: str = "4.9"
    body: str = "{}"

    @property
    def event_hash(self) -> str:
        return hashlib.md5(self.name.encode()).hexdigest()


class Scripts:
    """A fake server, and the scripts as the product calls them."""

    def __init__(self) -> None:
        self.client: Any = fakeredis.FakeRedis(server=fakeredis.FakeServer(), protocol=2)

    def run(self, name: str, keys: list[str], *arguments: Any) -> Any:
        """The reply of a script; an error reply is raised."""
        return self.client.eval(SHA1HEX + script(name).text, len(keys), *keys, *arguments)

    # -- given -----------------------------------------------------------------------------------------------------------

    def register(self, group: str, tenant: str = TENANT) -> None:
        """Register a group that every new log of the tenant's partition gets."""
        self.client.sadd(keys_of(tenant).groups, group)

    def filled(self, count: int, tenant: str = TENANT) -> None:
        """Write a log of `count` records, whose bodies are b1, b2, …"""
        for number in range(1, count + 1):
            fields = {"event": f"b{number}", "received_at_us": "7", "version": "1"}
            self.client.xadd(keys_of(tenant).log, fields, id=f"{number}-0")

    def deliver(self, group: str, count: int, *, acknowledged: int = 0, tenant: str = TENANT) -> None:
        """Let a group read `count` records, and acknowledge the first of them."""
        log = keys_of(tenant).log
        if not any(known["name"] == group.encode() for known in self.client.xinfo_groups(log)):
            self.client.xgroup_create(log, group, "0")
        if count:
            self.client.xreadgroup(group, "consumer", {log: ">"}, count=count)
        for position in range(1, acknowledged + 1):
            self.client.xack(log, group, f"{position}-0")

    # -- the scripts ----------------------------------------------------------------------------------------------------

    def append(
        self, *entries: Entry, limits: tuple[int, int, int] = (0, 0, 0), rejected: int = 0, tenant: str = TENANT
    ) -> list[Any]:
        keys = keys_of(tenant)
        names = [keys.log, keys.tenants, keys.groups, keys.usage, keys.deleted, keys.suppressed]
        arguments = [*addresses(keys, tenant), 7, WINDOW_MS, rejected, *limits]
        for entry in entries:
            names.append(keys.dedup + entry.event_hash)
            arguments += [entry.digest, entry.hash_parts, entry.body]
        reply: list[Any] = self.run("append", names, *arguments)
        return reply

    def lease(
        self, group: str = "g", *, lease_owner: str = "me", lease_ms: int = HOUR_MS, records: int = 1_000
    ) -> list[list[Any]]:
        partition = keys_of(TENANT).partition
        keys = [ready_key(partition, group), leases_key(partition, group)]
        reply: list[list[Any]] = self.run("lease", keys, group, lease_owner, lease_ms, records, log_prefix(partition))
        return reply

    def release(self, checkpoint: int, *, group: str = "g", lease_owner: str = "me", delay_ms: int = 0, since_ms: int = 0) -> int:
        keys = keys_of(TENANT)
        names = [keys.log, ready_key(keys.partition, group), leases_key(keys.partition, group)]
        return int(self.run("release", names, group, lease_owner, TENANT, checkpoint, delay_ms, since_ms))

    # -- then ------------------------------------------------------------------------------------------------------------

    def entries(self, tenant: str = TENANT) -> list[tuple[str, str, str]]:
        """The log: id, body and version of every entry."""
        return [
            (entry_id.decode(), fields[b"event"].decode(), fields[b"version"].decode())
            for entry_id, fields in self.client.xrange(keys_of(tenant).log)
        ]

    def dedup(self, name: str, tenant: str = TENANT) -> str | None:
        """The value of a name's deduplication key."""
        value = self.client.get(keys_of(tenant).dedup + Entry(name).event_hash)
        return None if value is None else value.decode()

    def usage(self, tenant: str = TENANT) -> dict[str, str]:
        return {field.decode(): value.decode() for field, value in self.client.hgetall(keys_of(tenant).usage).items()}

    def ready(self, group: str = "g") -> dict[str, float]:
        """When each tenant of the partition is due, in milliseconds."""
        due = self.client.zrange(ready_key(keys_of(TENANT).partition, group), 0, -1, withscores=True)
        return {tenant.decode(): score for tenant, score in due}

    def leases(self, group: str = "g") -> dict[str, str]:
        leases = self.client.hgetall(leases_key(keys_of(TENANT).partition, group))
        return {tenant.decode(): lease_owner.decode() for tenant, lease_owner in leases.items()}


def addresses(keys: TenantKeys, tenant: str = TENANT) -> list[Any]:
    """The arguments that scripts share, from the tenant to the channel."""
    return [tenant, keys.digest, ready_prefix(keys.partition), keys.partition, READY_CHANNEL]


def lease_addresses(keys: TenantKeys, tenant: str = TENANT) -> list[Any]:
    """The arguments of a tenant's deletion."""
    return [tenant, keys.digest, ready_prefix(keys.partition), leases_prefix(keys.partition)]
