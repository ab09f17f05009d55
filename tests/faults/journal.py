"""The events of the fault test, and its journals of attempts and receipts.

An attempt is written before each send, a receipt after each answer; both files lie outside of what is killed.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

# "acme" + "2S0" and "acme2" + "S0" join to one text: identities must not cross tenants either.
TENANTS = ("acme", "acme2", "acme-eu", "b", "Shop-7.x")
LIMITED, LIMIT = "b", 30  # the limit of this tenant, in events a second

Members = dict[str, Any]


class Receipt(NamedTuple):
    """The answer to one event; `content` is its canonical JSON."""

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
    """An event's identity by the contract: (event_hash, hash_parts)."""
    if "event_id" in members:
        joined, hash_parts = tenant + members["event_id"], "id"
    else:
        joined = tenant + members["session_id"] + members["event_type"] + members["timestamp"]
        hash_parts = f"{len(members['session_id'])}.{len(members['event_type'])}"
    return hashlib.md5(joined.encode()).hexdigest(), hash_parts


def canary(tenant: str) -> str:
    """A text that is in every event of a tenant, and nowhere else."""
    return f"canary-{hashlib.sha256(tenant.encode()).hexdigest()[:8]}"


class Journal:
    """The attempts and the receipts of all clients."""

    def __init__(self, folder: Path) -> None:
        self._attempts = (folder / "attempts.jsonl").open("ab", buffering=0)
        self._receipts = (folder / "receipts.jsonl").open("ab", buffering=0)
        self.attempts: dict[str, set[bytes]] = defaultdict(set)
        self.sent: dict[str, list[Members]] = defaultdict(list)
        self.receipts: list[Receipt] = []
        self.statuses: Counter[int] = Counter()
        self.sends: Counter[str] = Counter()  # events sent by tenant, each counted as often as it was sent
        self.answers: Counter[tuple[str, str]] = Counter()  # events by tenant and by their answer
        self.dedup_losses = 0  # how often the deduplication keys were deleted: an event may get a new position each time

    def attempt(self, tenant: str, events: Sequence[Members]) -> None:
        """Write down events before they are sent."""
        for members in events:
            content = content_of(members)
            self._attempts.write(b"%s\t%s\n" % (tenant.encode(), content))
            self.attempts[tenant].add(content)

    def receive(self, receipts: Sequence[Receipt], members: Sequence[Members]) -> None:
        """Write down the receipts of events after the answer."""
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
