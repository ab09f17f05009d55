"""python -m projector.rebuild: one replaying process of a rebuild."""

import contextlib
import gc

import uvloop

from projector.rebuild.replay_process import serve

if __name__ == "__main__":
    gc.set_threshold(100_000, 20, 20)  # batches are many small objects that hold no cycles
    with contextlib.suppress(ConnectionError, KeyboardInterrupt, FileNotFoundError):
        uvloop.run(serve())
