"""The log, folded into tables by other code than the product's."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import redis
from pyarrow import parquet

from tests.faults.environment import Violation
from tests.faults.journal import Members, content_of, identity

OWN = ("session_id", "event_type", "timestamp", "event_id")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Row = tuple[Any, ...]
SessionEvent = tuple[Any, ...]  # its time in microseconds, position, type, user id and anonymous id


class Entry(NamedTuple):
    """A record of the log, read without the product."""

    position: int
    received_at_us: int
    body: bytes
    is_control: bool = False


class Fold(NamedTuple):
    """What a tenant's tables must hold; rows and sessions by their key."""

    rows: dict[int, Row]
    sessions: dict[int, Row]
    quarantined: set[int]
    late_duplicates: int
    dropped: int


def log_keys(client: redis.Redis) -> dict[str, bytes]:
    """Every tenant's stream."""
    return {key.split(b":", 2)[2].decode(): key for key in client.scan_iter(match="*:log:*", count=10_000)}


def read_logs(client: redis.Redis, archive: Path) -> dict[str, list[Entry]]:
    """Every tenant's log. Raises Violation when an entry breaks the contract."""
    logs = {}
    for tenant, key in sorted(log_keys(client).items()):
        entries = cast(list[tuple[bytes, dict[bytes, bytes]]], client.xrange(key))
        if any(set(fields) != {b"event", b"received_at_us", b"version"} for _, fields in entries):
            raise Violation(f"{tenant}: an entry has other fields than event, received_at_us, version")
        live = [
            Entry(int(i.split(b"-")[0]), int(fields[b"received_at_us"]), fields[b"event"], fields[b"version"] == b"2")
            for i, fields in entries
        ]
        log = {entry.position: entry for entry in archived(archive / f"tenant={tenant}")}
        if wrong := [entry for entry in live if log.setdefault(entry.position, entry) != entry]:
            raise Violation(f"{tenant}: the archive has {log[wrong[0].position]}, the server {wrong[0]}")
        logs[tenant] = [log[position] for position in sorted(log)]
        if [entry.position for entry in logs[tenant]] != list(range(1, len(log) + 1)):
            raise Violation(f"{tenant}: positions are not 1, 2, 3, …")
    return logs


def archived(folder: Path) -> Iterator[Entry]:
    """The records that a tenant's manifest names."""
    if not (folder / "manifest.json").exists():
        return
    for segment in json.loads((folder / "manifest.json").read_text())["segments"]:
        file = folder / f"{segment['first']:020}-{segment['last']:020}.parquet"
        for row in parquet.ParquetFile(file).read().to_pylist():
            received_at_us = (row["received_at"] - EPOCH) // timedelta(microseconds=1)
            if row["raw"] is not None:
                yield Entry(row["position"], received_at_us, row["raw"], row["version"] == 2)
                continue
            names = ("event_id", "event_type", "properties", "session_id", "timestamp")
            texts = {name: json.dumps(row[name], ensure_ascii=False) for name in names if row[name] is not None}
            members = (f'"{name}":{row[name] if name == "properties" else text}' for name, text in texts.items())
            yield Entry(row["position"], received_at_us, f"{{{','.join(members)}}}".encode(), False)


@cache
def stored(body: bytes) -> tuple[Members, bytes]:
    """An event as its client sent it, decoded and in canonical form."""
    own = json.loads(body)
    members = own.pop("properties") | own
    return members, content_of(members)


def fold(tenant: str, log: list[Entry]) -> Fold:
    """The tables that belong to a log."""
    rows: dict[int, Row] = {}
    named: dict[tuple[str, str], bytes] = {}
    sessions: dict[str, list[SessionEvent]] = defaultdict(list)
    quarantined: set[int] = set()
    dropped = 0
    for entry in log:
        if entry.is_control:
            removed = quarantined & set(json.loads(entry.body)["positions"])
            quarantined -= removed
            dropped += len(removed) + 1  # the control record counts itself
            continue
        members, content = stored(entry.body)
        name = identity(tenant, members)
        if name in named:
            if named[name] != content:
                quarantined.add(entry.position)
            continue
        named[name] = content
        session, kind, time_us = members["session_id"], members["event_type"], microseconds(members["timestamp"])
        ids = [str(members.get(name, "null")) for name in ("user_id", "anonymous_id")]
        sessions[session].append((time_us, entry.position, kind, *(None if name in ("null", "0") else name for name in ids)))
        row = (entry.position, *name, members.get("event_id"), session, kind, members["timestamp"], time_us)
        rows[entry.position] = (*row, entry.received_at_us, properties_of(members), sessions[session][0][1])
    late = len(log) - len(rows) - len(quarantined) - dropped
    folded = (session_row(session, events) for session, events in sessions.items())
    return Fold(rows, {row[0]: row for row in folded}, quarantined, late, dropped)


def session_row(session: str, events: list[SessionEvent]) -> Row:
    """A session's row: first and last by time and position, smallest ids."""
    first, last = min(events), max(events)
    ids = [min((event[i] for event in events if event[i] is not None), default=None) for i in (3, 4)]
    return events[0][1], session, first[0], last[0], len(events), first[2], last[2], *ids


@cache
def microseconds(timestamp: str) -> int:
    """A timestamp in microseconds since 1970."""
    return (datetime.fromisoformat(timestamp) - EPOCH) // timedelta(microseconds=1)


def properties_of(members: Members) -> bytes:
    """The members that are no columns, in canonical form."""
    return content_of({key: value for key, value in members.items() if key not in OWN})


def digest_of(body: bytes) -> str:
    """The digest in deduplication keys and checkpoints."""
    return hashlib.blake2b(body, digest_size=8).hexdigest()
