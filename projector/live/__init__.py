"""The worker that keeps the live tables up to date with the log."""

from projector.live.worker import Worker, group_of

__all__ = ["Worker", "group_of"]
