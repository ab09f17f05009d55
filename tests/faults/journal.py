"""What events are to the fault test, and its journals: what was tried, and what was answered.

The attempts journal is written before each send, the receipts journal after each answer; both lie outside of what is
killed.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

# "acme" + "2S0" and "acme2" + "S0" join to one text: names must not cross tenants either.
TENANTS = ("acme", "acme2", "acme-eu", "b", "Shop-7.x")
LIMITED, LIMIT = "b", 30  # this one may send so many events a second

Members = dict[str, Any]


class Receipt(NamedTuple):
    """What a client was told of an event; `content` is the event's canonical JSON."""

    tenant: str
    content: bytes
    status: str
    position: int


def content_of(members: Members) -> bytes:
    """An event's canonical JSON: two events are equal when these are."""
    return json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@cache
def canonical(text: bytes) -> tuple[Members, bytes]:
    """Any JSON text of an event, decoded and in canonical form."""
    members = json.loads(text)
    return members, content_of(members)


def identity(tenant: str, members: Members) -> tuple[str, str]:
    """An event's name, as the contract has it: (event_hash, hash_parts)."""
    if "event_id" in members:
        joined, hash_parts = tenant + members["event_id"], "id"
    else:
        joined = tenant + members["session_id"] + members["event_type"] + members["timestamp"]
        hash_parts = f"{len(members['session_id'])}.{len(members['event_type'])}"
    return hashlib.md5(joined.encode()).hexdigest(), hash_parts


def canary(tenant: str) -> str:
    """What stands in every event of a tenant, and nowhere else."""
    return f"canary-{hashlib.sha256(tenant.encode()).hexdigest()[:8]}"


class Journal:
    """What was tried, and what was answered."""

    def __init__(self, folder: Path) -> None:
        self._attempts = (folder / "attempts.jsonl").open("ab", buffering=0)
        self._receipts = (folder / "receipts.jsonl").open("ab", buffering=0)
        self.attempts: dict[str, set[bytes]] = defaultdict(set)
        self.sent: dict[str, list[Members]] = defaultdict(list)
        self.receipts: list[Receipt] = []
        self.statuses: Counter[int] = Counter()
        self.sends: Counter[str] = Counter()  # events that were sent, each as often as it was
        self.told: Counter[tuple[str, str]] = Counter()  # events by tenant and by what they were answered
        self.forgettings = 0  # how often `seen` keys were deleted: so often may one event get a new position

    def attempt(self, tenant: str, events: Sequence[Members]) -> None:
        """To be called before a send."""
        for members in events:
            content = content_of(members)
            self._attempts.write(b"%s\t%s\n" % (tenant.encode(), content))
            self.attempts[tenant].add(content)

    def receive(self, receipts: Sequence[Receipt], members: Sequence[Members]) -> None:
        """To be called after an answer."""
        lines = (f"{r.tenant}\t{r.status}\t{r.position}\t{r.content.decode()}\n" for r in receipts)
        self._receipts.write("".join(lines).encode())
        self.receipts += receipts
        for receipt, event in zip(receipts, members, strict=True):
            if receipt.status == "accepted":
                self.sent[receipt.tenant].append(event)

    def close(self) -> None:
        """Close the files."""
        self._attempts.close()
        self._receipts.close()
