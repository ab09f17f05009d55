"""The worker: takes what is ready, applies it in one transaction, gives it back; for ever, or until nothing is left."""

import asyncio
import logging
import random
import time
from collections.abc import Sequence

import msgspec

from projector.projection import Batch, project
from projector.sqlite import SqliteStore
from projector.store import OtherProjection, StoreUnavailable
from projector.tables import Checkpoint
from streams import (
    PARTITIONS,
    WAKE_CHANNEL,
    Consumer,
    Delivery,
    Hole,
    Log,
    LogUnavailable,
    Record,
    Release,
    Taken,
    Wanted,
    digest_of,
    fault_point,
    page_records,
)

log_of_worker = logging.getLogger("projector")

POLL_SECONDS = 1.0
SWEEP_SECONDS = 5.0
STUCK_SECONDS = 5.0
LOST_LIMIT_RECORDS = 1_000
FIRST_READ_RECORDS = 1_000


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


class Worker:
    """One projector: a consumer of the group of one database's tables."""

    def __init__(
        self,
        log: Log,
        store: SqliteStore,
        *,
        holder: str,
        lease_seconds: float = 5.0,
        batch_records: int = 5_000,
        batch_bytes: int = 16 * 1024 * 1024,
    ) -> None:
        self._log = log
        self._store = store
        self._batch_records = batch_records
        self._batch_bytes = batch_bytes
        self._consumer = Consumer(log.wire, group=group_of(store), holder=holder, lease_seconds=lease_seconds)
        self._ready = set(range(PARTITIONS))
        self._woken = asyncio.Event()
        self._read_limit: dict[str, int] = {}
        self._stuck: dict[str, str] = {}

    # -- one turn ----------------------------------------------------------------------------------------------------

    async def run_once(self) -> int:
        """Take, read, apply, acknowledge, release; how many records were applied."""
        partitions, self._ready = sorted(self._ready), set()  # a wake-up that comes meanwhile stays
        taken_by_partition = await self._consumer.take(partitions, records=self._batch_records)
        self._ready |= {partition for partition, taken in taken_by_partition.items() if taken}
        taken = [tenant for tenants in taken_by_partition.values() for tenant in tenants]
        fault_point("after_take_before_read")
        if not taken:
            return 0
        checkpoints = self._checkpoints(taken)
        deliveries = await self._read(taken, checkpoints)
        fault_point("after_read_before_apply")
        batches, releases = [], []
        for tenant in taken:
            delivery, checkpoint = deliveries.get(tenant.tenant), checkpoints[tenant.tenant]
            try:
                batch = await self._next_batch(tenant, checkpoint, delivery)
            except (LogBehind, LogDiffers, Hole) as error:
                self._stop(tenant.tenant, error)
                releases.append(Release(tenant.tenant, 1, 0, checkpoint.position, STUCK_SECONDS))
                continue
            self._stuck.pop(tenant.tenant, None)
            if batch:
                batches.append(batch)
            first = min(checkpoint.position + 1, (delivery and delivery.pending_from) or checkpoint.position + 1)
            through = batch.through if batch else checkpoint.position
            releases.append(Release(tenant.tenant, first, through, through))
        applied = self._store.apply(batches) if batches else []
        fault_point("after_commit_before_acknowledge")
        unmoved = {batch.tenant for batch, written in zip(batches, applied, strict=True) if not written}
        await self._consumer.release([_without_acknowledging(r) if r.tenant in unmoved else r for r in releases])
        return sum(batch.through - batch.after for batch, written in zip(batches, applied, strict=True) if written)

    def _checkpoints(self, taken: Sequence[Taken]) -> dict[str, Checkpoint]:
        with self._store.reading() as connection:
            tables = self._store.tables_over(connection)
            return {tenant.tenant: tables.checkpoint(tenant.tenant) for tenant in taken}

    async def _read(self, taken: Sequence[Taken], checkpoints: dict[str, Checkpoint]) -> dict[str, Delivery]:
        wanted = []
        records, size = self._batch_records, self._batch_bytes
        for tenant in taken:
            checkpoint = checkpoints[tenant.tenant].position
            if tenant.last < checkpoint:
                continue
            limit = self._read_limit.get(tenant.tenant, FIRST_READ_RECORDS)
            count = max(1, min(tenant.last - checkpoint + 1, limit * size // self._batch_bytes, records))
            records -= count
            size -= count * self._batch_bytes // limit
            wanted.append(Wanted(tenant.tenant, checkpoint, count, tenant.abandoned))
        return await self._consumer.read(wanted)

    async def _next_batch(self, taken: Taken, checkpoint: Checkpoint, delivery: Delivery | None) -> Batch | None:
        """The batch that begins behind the checkpoint, or None when there is none. Raises when the log cannot give it."""
        after = checkpoint.position
        if taken.last < after or delivery is None:
            raise LogBehind(taken.tenant, taken.last, after)
        if differs(delivery.head, checkpoint):
            raise LogDiffers(taken.tenant, after)
        records = [record for record in delivery.records if record.position > after]
        through = records[-1].position if records else after
        if not records or records[0].position > after + 1:
            records, through = await self._fill(taken, after, records)
        if records:
            self._read_limit[taken.tenant] = page_records(records, self._batch_bytes, self._batch_records)
        return project(taken.tenant, after, records, through) if through > after else None

    async def _fill(self, taken: Taken, after: int, delivered: list[Record]) -> tuple[list[Record], int]:
        """What lies between the checkpoint and what was delivered, read from the log, then what was delivered; up to where.

        Records that were delivered to a projector that died, or before a database was restored, are read here. Records
        that somebody removed one by one are left out, up to a bound; the projection sets their positions aside.
        """
        through = delivered[0].position - 1 if delivered else taken.last
        through = min(through, after + self._batch_records)
        records: list[Record] = []
        position, lost = after, 0
        while position < through:
            try:
                async for page in self._log.read(taken.tenant, position, through=through):
                    records += page
                    position = page[-1].position
            except Hole as hole:
                lost += hole.last - position
                if lost > LOST_LIMIT_RECORDS:
                    raise
                position = hole.last
        if delivered and through == delivered[0].position - 1:
            return records + delivered, delivered[-1].position
        return records, through

    def _stop(self, tenant: str, error: Exception) -> None:
        if self._stuck.get(tenant) != str(error):
            log_of_worker.error("%s: stopped: %s", tenant, error)
        self._stuck[tenant] = str(error)

    # -- all turns ---------------------------------------------------------------------------------------------------

    async def run_to_end(self) -> int:
        """Apply until nothing is left that may be taken; how many records."""
        applied = 0
        await self.sweep()
        self._ready = set(range(PARTITIONS))
        while self._ready:
            applied += await self.run_once()
        return applied

    async def run(self, stop: asyncio.Event) -> None:
        """Apply until told to stop; the batch in hand is finished."""
        listening = asyncio.create_task(self._listen())
        stopping = asyncio.create_task(stop.wait())
        next_poll = next_sweep = 0.0
        failures = 0
        try:
            while not stop.is_set():
                try:
                    if time.monotonic() >= next_sweep:
                        await self.sweep()
                        self._store.truncate_wal()
                        next_sweep = time.monotonic() + SWEEP_SECONDS * random.uniform(0.8, 1.2)
                    if time.monotonic() >= next_poll:
                        self._ready = set(range(PARTITIONS))
                        next_poll = time.monotonic() + POLL_SECONDS
                    if self._ready:
                        await self.run_once()
                    else:
                        await self._idle(stopping, next_poll - time.monotonic())
                    failures = 0
                except (LogUnavailable, StoreUnavailable, OtherProjection) as error:
                    failures += 1
                    if failures in (1, 10) or failures % 100 == 0:
                        log_of_worker.warning("waiting: %s: %s", type(error).__name__, error)
                    self._ready = set(range(PARTITIONS))
                    await asyncio.wait([stopping], timeout=min(2.0, 0.05 * 2 ** min(failures, 6)) * random.uniform(0.5, 1.0))
        finally:
            for task in (listening, stopping):
                task.cancel()
            await asyncio.gather(listening, stopping, return_exceptions=True)

    async def sweep(self) -> None:
        """Register the group, make ready what was forgotten, and name the tenants whose log lost records."""
        with self._store.reading() as connection:
            checkpoints = self._store.tables_over(connection).checkpoints()
        surveys = {survey.tenant: survey for survey in await self._log.survey()}
        positions = [
            (tenant, checkpoints[tenant].position if tenant in checkpoints else 0)
            for tenant in surveys.keys() | checkpoints.keys()
        ]
        await self._consumer.repair(positions)
        for tenant, position in positions:
            last = surveys[tenant].last if tenant in surveys else 0
            if last < position:
                self._stop(tenant, LogBehind(tenant, last, position))

    async def _idle(self, stopping: asyncio.Task[bool], seconds: float) -> None:
        """Until something is ready, the time is up, or the process shall stop."""
        self._woken.clear()
        waking = asyncio.create_task(self._woken.wait())
        await asyncio.wait([waking, stopping], timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
        waking.cancel()

    async def _listen(self) -> None:
        """Hear which partitions have something ready. Only a hint: what is missed is found by the next poll."""
        while True:
            try:
                async for partition in self._log.wire.listen(WAKE_CHANNEL):
                    self._ready.add(int(partition))
                    self._woken.set()
            except LogUnavailable:
                pass
            await asyncio.sleep(random.uniform(0.2, 0.6))


def differs(record: Record | None, checkpoint: Checkpoint) -> bool:
    """Whether the record at a checkpoint is another than the one that was applied. One that is gone tells nothing."""
    return record is not None and checkpoint.digest != "" and digest_of(record.body) != checkpoint.digest


def group_of(store: SqliteStore) -> str:
    """The group of a database's tables; no two databases share one."""
    return f"projector:{store.tables_id}"


def _without_acknowledging(release: Release) -> Release:
    """What another projector applied is due to be looked at again, from its checkpoint."""
    return msgspec.structs.replace(release, through=release.first - 1, checkpoint=release.first - 1)


__all__ = ["LogBehind", "LogDiffers", "Worker", "differs", "group_of"]
