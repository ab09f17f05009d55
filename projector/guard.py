"""The guard: whether a log is still the one that the tables were made from. If it is not, nothing is guessed."""

from projector.tables import Checkpoint
from streams import Record, digest_of


class LogBehind(Exception):
    """The log ends before the tables do: its server lost records that were applied."""

    def __init__(self, tenant: str, last: int, checkpoint: int) -> None:
        super().__init__(
            f"the log of {tenant} ends at position {last}, its tables at {checkpoint}: "
            f"records {last + 1} to {checkpoint} are missing from the log"
        )


class LogDiffers(Exception):
    """The record at the checkpoint is not the one that was applied: the log was replaced or lost its tail."""

    def __init__(self, tenant: str, position: int) -> None:
        super().__init__(f"the log of {tenant} holds another record at position {position} than the tables")


class LogUnreadable(Exception):
    """The server cannot read a tenant's log: its key holds something else."""

    def __init__(self, tenant: str, reason: str) -> None:
        super().__init__(f"the log of {tenant} cannot be read: {reason}")


def differs(record: Record | None, checkpoint: Checkpoint) -> bool:
    """Whether the record at a checkpoint is another than the one that was applied. One that is gone tells nothing."""
    return record is not None and checkpoint.digest != "" and digest_of(record.body) != checkpoint.digest
