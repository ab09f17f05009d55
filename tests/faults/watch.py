"""The watcher reads all the time, for what the checks would miss.

It looks for a moment in which the tables disagree, have fewer rows than before, or lack what was acknowledged.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import redis

from tests.faults.fold import log_keys
from tests.faults.journal import TENANTS
from tests.faults.system import System

PAUSE_SECONDS = 0.015
COUNTS = """
    SELECT c.tenant_id, c.position, c.late_duplicates, c.dropped + c.erased,
        (SELECT count(*) FROM events WHERE tenant_id = c.tenant_id),
        (SELECT count(*) FROM quarantine WHERE tenant_id = c.tenant_id),
        (SELECT coalesce(sum(event_count), 0) FROM event_sessions WHERE tenant_id = c.tenant_id)
    FROM checkpoints c"""


class Watcher:
    """A thread that reads tables and groups; `problems` is what it saw."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._client = redis.Redis(unix_socket_path=str(system.data / "server.sock"), protocol=2, socket_timeout=5)
        self._stop = threading.Event()
        self._looking = threading.Lock()
        self._positions: dict[str, tuple[int, int]] = {}  # tenant -> checkpoint and rows of the last look
        self._excused: dict[str, int] = {}  # tenant -> the position acknowledged before an older database was put back
        self._keys: dict[str, bytes] = {}
        self.looks = 0
        self.problems: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._thread.join()
        self._client.close()

    @contextlib.contextmanager
    def looking_away(self) -> Iterator[None]:
        """Do not read while an older database is put back, which has fewer rows."""
        with self._looking:
            yield
            self._positions = {}
            self._excused = self._acknowledged()

    def _run(self) -> None:
        while not self._stop.wait(PAUSE_SECONDS):
            with self._looking:
                try:
                    self._look()
                except Exception as error:  # every error that a reader meets is a finding
                    self._say(f"a reader met {type(error).__name__}: {error}")

    def _look(self) -> None:
        acknowledged: dict[str, int] = {}
        with contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
            acknowledged = self._acknowledged()
        with self._system.snapshot() as connection:
            counts = connection.execute(COUNTS).fetchall()
        for tenant, position, late, tombstones, rows, quarantined, counted in counts:
            self._compare(tenant, position, rows)
            if rows + late + tombstones + quarantined != position or counted != rows:
                self._say(
                    f"{tenant}: in one snapshot {rows} rows + {late} late + {tombstones} dropped + {quarantined} quarantined at {position}, "
                    f"and sessions that count {counted}"
                )
        self._check_acknowledged(acknowledged, {tenant: position for tenant, position, *_ in counts})
        self.looks += 1

    def _compare(self, tenant: str, position: int, rows: int) -> None:
        before = self._positions.get(tenant, (0, 0))
        if position < before[0] or rows < before[1]:
            self._say(f"{tenant}: a reader saw checkpoint and rows {before}, then {(position, rows)}")
        self._positions[tenant] = (position, rows)

    def _check_acknowledged(self, acknowledged: dict[str, int], checkpoints: dict[str, int]) -> None:
        for tenant, position in acknowledged.items():
            applied = max(checkpoints.get(tenant, 0), self._excused.get(tenant, 0))
            if position > applied:
                self._say(f"{tenant}: acknowledged, but not in the tables: {applied + 1} to {position}")

    def _acknowledged(self) -> dict[str, int]:
        """The acknowledged position of each log, read before the snapshot."""
        if len(self._keys) < len(TENANTS):
            self._keys = log_keys(self._client)
        acknowledged = {}
        for tenant, key in self._keys.items():
            for group in self._client.xinfo_groups(key):
                acknowledged[tenant] = self._acknowledged_by(key, group["name"])
        return acknowledged

    def _acknowledged_by(self, key: bytes, name: Any) -> int:
        """Through which position a group has acknowledged.

        A delivery is pending under the position of its first record.
        """
        with self._client.pipeline(transaction=True) as pipeline:
            pipeline.xinfo_groups(key)
            pipeline.xpending(key, name)
            groups, pending = pipeline.execute(raise_on_error=False)
        if isinstance(pending, redis.ResponseError):  # the group was destroyed between the two
            return 0
        if pending["pending"]:
            return int(pending["min"].split(b"-")[0]) - 1
        [delivered] = [group["last-delivered-id"] for group in groups if group["name"] == name] or [b"0-0"]
        return int(delivered.split(b"-")[0])

    def _say(self, problem: str) -> None:
        if problem not in self.problems and len(self.problems) < 12:
            self.problems.append(problem)
