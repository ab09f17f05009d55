"""What must hold when a system is level, after any fault.

The log is folded by other code than the product's, and compared with the tables of one read transaction, with the receipts,
and with the keys of the server.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import redis

from tests.faults.environment import Violation, children_of
from tests.faults.fold import Entry, Fold, Row, digest_of, fold, log_keys, read_logs, stored
from tests.faults.journal import Journal, canary, canonical, identity
from tests.faults.system import NAMES, System

TABLES = {
    "events": "position",
    "event_sessions": "first_position",
    "identity_links": "identity, linked_identity",
    "quarantine": "position",
    "checkpoints": "position",
}
EVENT_COLUMNS = (
    "position, event_hash, hash_parts, event_id, session_id, event_type, timestamp, timestamp_us, received_at_us, "
    "properties, session_position"
)
SESSION_COLUMNS = (
    "first_position, session_id, started_at_us, last_event_at_us, event_count, first_event_type, last_event_type, "
    "user_id, anonymous_id"
)
PROPERTIES = EVENT_COLUMNS.split(", ").index("properties")
COUNTED = ("duplicate", "conflict", "rejected", "limited")
WAL_LIMIT_BYTES = 96 * 1024 * 1024
FILES_LIMIT = 60
MEMORY_LIMIT_KIB = 150 * 1024
CONSUMERS_LIMIT = 4
SHOWN = 4  # of each kind


def check(system: System, journal: Journal) -> int:
    """Check all invariants; returns the number of records.

    Raises Violation with what does not hold.
    """
    logs = read_logs(system.client, system.data / "archive")
    folds = {tenant: fold(tenant, log) for tenant, log in logs.items()}
    problems = [iter(system.ended_alone), log_problems(logs, journal), receipt_problems(logs, folds, journal)]
    problems += [
        dedup_problems(system.client, logs),
        count_problems(system.client, logs, journal),
        group_problems(system.client),
        process_problems(system),
    ]
    with system.snapshot() as connection:
        problems += [table_problems(connection, tenant, log, folds[tenant]) for tenant, log in logs.items()]
        problems += [stranger_problems(connection, set(logs))]
        wrong = [problem for kind in problems for problem in islice(kind, SHOWN)]
    if wrong:
        raise Violation("\n".join(wrong))
    return sum(map(len, logs.values()))


# -- the log -----------------------------------------------------------------------------------------------------------


def log_problems(logs: dict[str, list[Entry]], journal: Journal) -> Iterator[str]:
    """Records never sent, of another tenant, or twice in the log."""
    for tenant, log in logs.items():
        times: Counter[tuple[str, str]] = Counter()
        for entry in (entry for entry in log if not entry.is_control):
            members, content = stored(entry.body)
            times[identity(tenant, members)] += 1
            if content not in journal.attempts[tenant]:
                yield f"{tenant}: position {entry.position} was never sent: {entry.body!r}"
            if members.get("canary") != canary(tenant) or entry.body.count(b"canary-") != 1:
                yield f"{tenant}: position {entry.position} holds another tenant's canary"
        for name, count in times.items():
            if count > 1 + journal.dedup_losses:
                yield f"{tenant}: {name} has {count} positions, and the deduplication keys were lost {journal.dedup_losses} times"


# -- the tables --------------------------------------------------------------------------------------------------------


def table_problems(connection: Any, tenant: str, log: list[Entry], expected: Fold) -> Iterator[str]:
    """Where a tenant's tables are not the fold of its log."""
    rows = select(connection, f"SELECT {EVENT_COLUMNS} FROM events WHERE tenant_id = ?", tenant)
    rows = {position: with_canonical_properties(row) for position, row in rows.items()}
    sessions = select(connection, f"SELECT {SESSION_COLUMNS} FROM event_sessions WHERE tenant_id = ?", tenant)
    quarantine = select(connection, "SELECT position, reason, detail FROM quarantine WHERE tenant_id = ?", tenant)
    for position in quarantine.keys() ^ expected.quarantined:
        yield f"{tenant}: position {position} is {'' if position in quarantine else 'not '}in quarantine: {quarantine.get(position)}"
    yield from (f"{tenant}: quarantined as no conflict: {row}" for row in quarantine.values() if row[1] != "conflict")
    checkpoint = connection.execute(
        "SELECT position, digest, late_duplicates, dropped, erased FROM checkpoints WHERE tenant_id = ?", (tenant,)
    ).fetchone()
    right = (len(log), digest_of(log[-1].body), expected.late_duplicates, expected.dropped, 0)
    if checkpoint != right:
        yield f"{tenant}: the checkpoint (position, digest, late duplicates, dropped, erased) is {checkpoint}, and should be {right}"
    if checkpoint and len(rows) + len(quarantine) + sum(checkpoint[2:]) != checkpoint[0]:
        counts = f"{checkpoint[2]} late + {checkpoint[3]} dropped + {checkpoint[4]} erased"
        yield f"{tenant}: {len(rows)} rows + {len(quarantine)} quarantined + {counts} != {checkpoint[0]}"
    yield from differences(f"{tenant}: session", sessions, expected.sessions)
    yield from differences(f"{tenant}: event", rows, expected.rows)


def stranger_problems(connection: Any, tenants: set[str]) -> Iterator[str]:
    """Rows of tenants that have no log."""
    for table in TABLES:
        owners = {tenant for (tenant,) in connection.execute(f"SELECT DISTINCT tenant_id FROM {table}")}
        yield from (f"{table} has rows of {tenant}, which has no log" for tenant in owners - tenants)


def select(connection: Any, query: str, tenant: str) -> dict[int, Row]:
    """Rows by their first column."""
    return {row[0]: row for row in connection.execute(query, (tenant,))}


def with_canonical_properties(row: Row) -> Row:
    """An event's row with its properties in canonical form."""
    return (*row[:PROPERTIES], canonical(row[PROPERTIES].encode())[1], *row[PROPERTIES + 1 :])


def differences(what: str, rows: dict[int, Row], expected: dict[int, Row]) -> Iterator[str]:
    """Rows that are missing, too many or different."""
    for key in sorted(rows.keys() | expected.keys()):
        if rows.get(key) != expected.get(key):
            yield f"{what} {key} is {rows.get(key)}, and should be {expected.get(key)}"


def digest_of_tables(system: System) -> dict[str, str]:
    """A digest of each table, to be compared before and after a rebuild."""
    with system.snapshot() as connection:
        digests = {}
        for table, key in TABLES.items():
            rows = connection.execute(f"SELECT * FROM {table} ORDER BY tenant_id, {key}").fetchall()
            digests[table] = hashlib.sha256(json.dumps(rows, default=repr).encode()).hexdigest()
        return digests


# -- receipts and Redis ------------------------------------------------------------------------------------------------


def receipt_problems(logs: dict[str, list[Entry]], folds: dict[str, Fold], journal: Journal) -> Iterator[str]:
    """Receipts of another event, and promised events without exactly one row."""
    rows_of_names = {tenant: Counter((row[1], row[2]) for row in folds[tenant].rows.values()) for tenant in folds}
    for receipt in set(journal.receipts):
        log = logs.get(receipt.tenant, [])
        if not 0 < receipt.position <= len(log):
            yield f"{receipt.tenant}: {receipt.status} at position {receipt.position}, which the log lacks: {receipt.content!r}"
            continue
        members, content = stored(log[receipt.position - 1].body)
        name = identity(receipt.tenant, canonical(receipt.content)[0])
        same = content == receipt.content if receipt.status != "conflict" else content != receipt.content
        if not same or identity(receipt.tenant, members) != name:
            yield f"{receipt.tenant}: {receipt.status} at {receipt.position}, which is {content!r}, for {receipt.content!r}"
        if rows_of_names[receipt.tenant][name] != 1:
            yield f"{receipt.tenant}: {receipt.status} {name} has {rows_of_names[receipt.tenant][name]} rows"


def count_problems(client: redis.Redis, logs: dict[str, list[Entry]], journal: Journal) -> Iterator[str]:
    """Counts below what clients were answered, or above what they sent.

    The accepted events are the records of the log that are no control records.
    """
    for tenant, sent in journal.sends.items():
        if not tenant:
            continue
        [usage] = [client.hgetall(key) for key in client.scan_iter(match=f"*:usage:{tenant}", count=10_000)] or [{}]
        counted = {outcome: int(usage.get(outcome.encode(), 0)) for outcome in COUNTED}
        for outcome, count in counted.items():
            if count < journal.answers[tenant, outcome]:
                yield f"{tenant}: counted {count} {outcome}, and clients were answered so {journal.answers[tenant, outcome]} times"
        accepted = sum(not entry.is_control for entry in logs.get(tenant, []))
        if (total := sum(counted.values()) + accepted) > sent:
            yield f"{tenant}: counted {counted} and {accepted} accepted, {total}, of {sent} that were sent"


def dedup_problems(client: redis.Redis, logs: dict[str, list[Entry]]) -> Iterator[str]:
    """Deduplication keys without their event."""
    keys = list(client.scan_iter(match="*:dedup:*", count=10_000))
    values: list[Any] = client.mget(keys) if keys else []
    for key, value in zip(keys, values, strict=True):
        tenant, _, event_hash = key.decode().split(":dedup:", 1)[1].rpartition(":")
        log = logs.get(tenant, [])
        for remembered in (value or b"").decode().split():
            position, digest, hash_parts = remembered.split("/")
            entry = log[int(position) - 1] if int(position) <= len(log) else None
            if (
                entry is None
                or digest_of(entry.body) != digest
                or identity(tenant, stored(entry.body)[0]) != (event_hash, hash_parts)
            ):
                yield f"{tenant}: the deduplication key {event_hash} remembers {remembered}; the log has {entry}"


def group_problems(client: redis.Redis) -> Iterator[str]:
    """Too many groups, consumers or pending entries."""
    for tenant, key in log_keys(client).items():
        groups = client.xinfo_groups(key)
        if len(groups) > 1:  # a tenant whose group was destroyed has none until its next event
            yield f"{tenant} has the groups {groups}"
        for group in groups:
            if group["consumers"] > CONSUMERS_LIMIT or group["pending"]:
                yield f"{tenant}: too many consumers or pending records: {group}"


def process_problems(system: System) -> Iterator[str]:
    """A WAL, open files or memory over their limits."""
    with suppress(FileNotFoundError):
        size = os.path.getsize(f"{system.tables}-wal")
        if size > WAL_LIMIT_BYTES:
            yield f"the WAL has {size} bytes"
    for name in NAMES:
        pid = system.processes[name].pid
        for process_id in (pid, *children_of(pid)):
            with suppress(OSError):
                files = len(os.listdir(f"/proc/{process_id}/fd"))
                memory = int(Path(f"/proc/{process_id}/status").read_text().partition("VmRSS:")[2].split()[0])
                if files > FILES_LIMIT or memory > MEMORY_LIMIT_KIB:
                    yield f"{name} has {files} open files and {memory} KiB"
