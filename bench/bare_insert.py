"""The reference of the projector: a process that only writes rows.

It uses the projector's statements, and answers the records and the seconds from BEGIN to COMMIT. Each round is a process of
its own, as the projector's is: a process that wrote before has its memory at hand, and is a tenth faster.
"""

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import pysqlite3

from bench.rows import Values, transactions
from bench.workload import tenant_names
from projector.store.sqlite import SqliteStore
from projector.store.sqlite.connection import PAGE_BYTES, WAL_PAGES
from projector.store.sqlite.event_rows import EventRows
from projector.store.sqlite.schema import LIVE
from streams.runtime import load_settings

CACHE_MIB = load_settings({}).sqlite_cache_mib


class Inserter:
    """A connection set up as the projector's, and its statements."""

    def __init__(self, path: str) -> None:
        with SqliteStore(path):
            pass  # makes the file and the tables
        self._connection = pysqlite3.connect(path, isolation_level=None, cached_statements=256)
        self._connection.execute(f"PRAGMA cache_size = {-CACHE_MIB * 1024}")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        self._connection.execute(f"PRAGMA journal_size_limit = {PAGE_BYTES * WAL_PAGES}")
        rows = EventRows(self._connection, LIVE)
        self._insert_event, self._add_to_session = rows.insert_event, rows.add_to_session

    def write(self, events: Values, sessions: Values) -> float:
        """Write one transaction; its seconds."""
        started = time.perf_counter()
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(self._insert_event, events)
        self._connection.executemany(self._add_to_session, sessions)
        self._connection.execute("COMMIT")
        return time.perf_counter() - started

    def move_checkpoints(self, tenants: list[str], position: int) -> None:
        """Write the checkpoints of records that are applied."""
        with self._connection:
            self._connection.executemany(
                "INSERT INTO checkpoints (tenant_id, position, digest, late_duplicates) VALUES (?, ?, '', 0)",
                [(tenant, position) for tenant in tenants],
            )

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def fill(plan: dict[str, Any]) -> None:
    """Write rows as they are made, so that any number fits memory."""
    tenants = tenant_names(plan["tenants"])
    inserter = Inserter(plan["path"])
    for events, sessions in transactions(tenants, plan["records"], seed=plan["seed"]):
        inserter.write(events, sessions)
    inserter.move_checkpoints(tenants, plan["records"] // len(tenants))
    inserter.close()
    print(json.dumps({"bytes": Path(plan["path"]).stat().st_size}))


def measure(plan: dict[str, Any]) -> None:
    """Make rows, then write them."""
    rows = list(transactions(tenant_names(plan["tenants"]), plan["records"], seed=plan["seed"], after=plan["after"]))
    gc.collect()
    gc.freeze()
    inserter = Inserter(plan["path"])
    seconds = sum(inserter.write(events, sessions) for events, sessions in rows)
    inserter.close()
    print(json.dumps({"seconds": seconds, "records": sum(len(events) for events, _ in rows)}))


if __name__ == "__main__":
    plan = json.loads(sys.argv[1])
    measure(plan) if "after" in plan else fill(plan)
