"""Whether a log is still the log that the tables were made from.

If it is not, the tenant is stopped and nothing is guessed.
"""

from collections.abc import Mapping, Sequence

from projector.projection import NO_CHECKPOINT, Checkpoint
from streams import Log, LogSummary, Record, control, digest_of
from streams.errors import PenstockError


class LogTruncated(PenstockError):
    """The log ends before the tables do: its server lost records that were applied."""

    def __init__(self, tenant: str, last: int, checkpoint: int) -> None:
        super().__init__(
            f"the log of {tenant} ends at position {last}, its tables at {checkpoint}: "
            f"records {last + 1} to {checkpoint} are missing from the log"
        )


class LogDiffers(PenstockError):
    """The record at the checkpoint is not the applied record: the log was replaced or lost its tail."""

    def __init__(self, tenant: str, position: int) -> None:
        super().__init__(f"the log of {tenant} holds another record at position {position} than the tables")


class LogUnreadable(PenstockError):
    """The server cannot read a tenant's log: its key holds something else."""

    def __init__(self, tenant: str, reason: str) -> None:
        super().__init__(f"the log of {tenant} cannot be read: {reason}")


class DeletedTenantHasLog(PenstockError):
    """The tenant was deleted from the tables, and has a log again: that of a restored server."""

    def __init__(self, tenant: str) -> None:
        super().__init__(
            f"{tenant} was deleted from these tables, and has a log again: delete it again, or let it begin with "
            "`penstock api tenant create`"
        )


class TenantUnknown(PenstockError):
    """Neither the log nor the tables know the tenant."""

    def __init__(self, tenant: str) -> None:
        super().__init__(f"neither the log nor the tables know the tenant {tenant}")


def differs(record: Record | None, checkpoint: Checkpoint) -> bool:
    """Whether the record at a checkpoint is not the applied record.

    A record that is missing, or erased, says nothing.
    """
    if record is None or control.is_erased(record):
        return False
    return checkpoint.digest != "" and digest_of(record.body) != checkpoint.digest


async def disagreements(
    log: Log, summaries: Sequence[LogSummary], checkpoints: Mapping[str, Checkpoint]
) -> dict[str, LogTruncated | LogDiffers]:
    """The tenants whose log does not belong to their tables.

    It ends before the checkpoint, or holds another record there. Raises LogUnavailable.
    """
    places = [(summary, checkpoints.get(summary.tenant, NO_CHECKPOINT)) for summary in summaries]
    errors: dict[str, LogTruncated | LogDiffers] = {
        summary.tenant: LogTruncated(summary.tenant, summary.last, at.position)
        for summary, at in places
        if summary.last < at.position
    }
    whole = [(summary.tenant, at) for summary, at in places if summary.tenant not in errors and at.position]
    heads = await log.find_each([(tenant, at.position) for tenant, at in whole])
    for (tenant, at), head in zip(whole, heads, strict=True):
        if differs(head, at):
            errors[tenant] = LogDiffers(tenant, at.position)
    return errors
