"""A process that notes when each checkpoint moves, to 2 ms."""

import json
import sys
import time

import pysqlite3

PAUSE_SECONDS = 0.002


def watch(path: str, until: float) -> list[tuple[str, int, float]]:
    """The tenant, checkpoint and time of each move."""
    connection = pysqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
    moves: list[tuple[str, int, float]] = []
    known: dict[str, int] = {}
    version = -1
    while (began := time.monotonic()) < until:
        [now] = connection.execute("PRAGMA data_version").fetchone()
        if now != version:
            version = now
            checkpoints = dict(connection.execute("SELECT tenant_id, position FROM checkpoints").fetchall())
            moved = checkpoints.items() - known.items()
            at = time.monotonic()
            moves += [(tenant, position, at) for tenant, position in moved]
            known = checkpoints
        time.sleep(max(0.0, began + PAUSE_SECONDS - time.monotonic()))
    connection.close()
    return moves


if __name__ == "__main__":
    plan = json.loads(sys.argv[1])
    print(json.dumps(watch(plan["path"], plan["until"])))
