"""A process that looks at the tables every 2 ms, as a reader would, and notes when each tenant's checkpoint moved."""

import json
import sys
import time

import pysqlite3

PAUSE_SECONDS = 0.002


def watch(path: str, until: float) -> list[tuple[str, int, float]]:
    """The tenant, checkpoint and time of each move that was seen."""
    connection = pysqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
    dedup_keys: list[tuple[str, int, float]] = []
    known: dict[str, int] = {}
    version = -1
    while (began := time.monotonic()) < until:
        [now] = connection.execute("PRAGMA data_version").fetchone()
        if now != version:
            version = now
            checkpoints = dict(connection.execute("SELECT tenant_id, position FROM checkpoints").fetchall())
            moved = checkpoints.items() - known.items()
            at = time.monotonic()
            dedup_keys += [(tenant, position, at) for tenant, position in moved]
            known = checkpoints
        time.sleep(max(0.0, began + PAUSE_SECONDS - time.monotonic()))
    connection.close()
    return dedup_keys


if __name__ == "__main__":
    plan = json.loads(sys.argv[1])
    print(json.dumps(watch(plan["path"], plan["until"])))
