"""The worker: takes what is ready, applies it in one transaction, gives it back; for ever, or until nothing is left."""

import asyncio
import logging
import random
import time
from collections.abc import Sequence

from projector.divergence import DeletedTenantHasLog, LogDiffers, LogTruncated, LogUnreadable, differs
from projector.live.scheduling import READ_AHEAD, LeasedTenant, plan
from projector.projection import Batch, Checkpoint, project
from projector.store import OtherProjection, Store, StoreReplaced, StoreUnavailable
from streams import Consumer, Delivery, Lease, Log, Record, mean_bytes
from streams.errors import Gap, LogUnavailable
from streams.keys import PARTITIONS, READY_CHANNEL
from streams.runtime import failpoint

log_of_worker = logging.getLogger("projector")

POLL_SECONDS = 1.0
SWEEP_SECONDS = 5.0
STUCK_SECONDS = 5.0
LOST_LIMIT_RECORDS = 1_000


class Worker:
    """One projector: a consumer of the group of one database's tables."""

    def __init__(
        self,
        log: Log,
        store: Store,
        *,
        lease_owner: str,
        lease_seconds: float = 5.0,
        batch_records: int = 5_000,
        batch_bytes: int = 16 * 1024 * 1024,
    ) -> None:
        self._log = log
        self._store = store
        self._batch_records = batch_records
        self._batch_bytes = batch_bytes
        self._consumer = Consumer(log.connection, group=group_of(store), lease_owner=lease_owner, lease_seconds=lease_seconds)
        self._ready = set(range(PARTITIONS))
        self._woken = asyncio.Event()
        self._sizes: dict[str, int] = {}
        self._stuck: dict[str, str] = {}
        self._registered = False

    # -- one leased ----------------------------------------------------------------------------------------------------

    async def run_once(self) -> int:
        """Take, read, apply, acknowledge, release; how many records were applied.

        A leased reads up to READ_AHEAD batches. The next is asked for, and the one before acknowledged, while the one in hand
        is written: the server's work is done meanwhile.
        """
        tenants = await self._take()
        failpoint("after_lease_before_read")
        if not tenants:
            return 0
        applied = 0
        parts = plan(tenants, self._sizes, records=self._batch_records, size_bytes=self._batch_bytes)
        reading = asyncio.create_task(self._consumer.read(parts[0]))
        acknowledging = []
        try:
            for following in [*parts[1:], None]:
                deliveries = await reading
                if following is not None:
                    reading = asyncio.create_task(self._consumer.read(following))
                batches = await self._batches(tenants, deliveries)
                await asyncio.sleep(0)  # until what was asked for is sent
                failpoint("after_read_before_apply")
                applied += self._apply(tenants, batches)
                failpoint("after_commit_before_acknowledge")
                acknowledging.append(asyncio.create_task(self._acknowledge(tenants)))
            await asyncio.gather(*acknowledging)
        finally:
            for task in (reading, *acknowledging):
                task.cancel()
        failpoint("after_acknowledge_before_release")
        await self._consumer.release([leased.release() for leased in tenants.values()])
        return applied

    async def _acknowledge(self, tenants: dict[str, LeasedTenant]) -> None:
        done = [(tenant, leased.acknowledgeable()) for tenant, leased in tenants.items() if leased.pending]
        await self._consumer.acknowledge([(tenant, ids) for tenant, ids in done if ids])

    async def _take(self) -> dict[str, "LeasedTenant"]:
        """The tenants of this leased, with their checkpoints. Raises StoreReplaced: another database has another group."""
        self._store.check_identity()
        partitions, self._ready = sorted(self._ready), set()  # a wake-up that comes meanwhile stays
        lease = await self._consumer.lease(partitions, records=self._batch_records * READ_AHEAD)
        self._ready |= {partition for partition, tenants in lease.items() if tenants}
        leases = {one.tenant: one for tenants in lease.values() for one in tenants}
        states = self._store.states(leases)
        return {tenant: LeasedTenant(leases[tenant], state.checkpoint, erased=state.deleted) for tenant, state in states.items()}

    async def _batches(self, tenants: dict[str, "LeasedTenant"], deliveries: dict[str, Delivery]) -> list[Batch]:
        """The batches that what was delivered makes; a tenant whose log cannot go on is stopped, the others go on."""
        batches = []
        for tenant, delivery in deliveries.items():
            leased = tenants[tenant]
            leased.served = True
            leased.pending += delivery.pending
            if leased.ended:
                continue
            try:
                batch = await self._next_batch(leased, delivery)
            except (LogTruncated, LogDiffers, DeletedTenantHasLog, LogUnreadable, Gap) as error:
                self._stop(tenant, error)
                leased.ended, leased.delay_seconds = True, STUCK_SECONDS
                continue
            self._stuck.pop(tenant, None)
            if batch:
                batches.append(batch)
        return batches

    def _apply(self, tenants: dict[str, "LeasedTenant"], batches: Sequence[Batch]) -> int:
        """Write batches; how many records. A tenant that another projector has moved is left to the next leased."""
        written = self._store.apply(batches) if batches else []
        for batch, moved in zip(batches, written, strict=True):
            leased = tenants[batch.tenant]
            if moved:
                leased.checkpoint = Checkpoint(batch.through, batch.digest, 0)
            else:
                leased.ended = True
        return sum(batch.through - batch.after for batch, moved in zip(batches, written, strict=True) if moved)

    async def _next_batch(self, leased: LeasedTenant, delivery: Delivery) -> Batch | None:
        """The batch that begins behind the checkpoint, or None when there is none. Raises when the log cannot give it."""
        lease, checkpoint = leased.lease, leased.checkpoint
        after = checkpoint.position
        if leased.erased and lease.last:
            raise DeletedTenantHasLog(lease.tenant)
        if delivery.error is not None:
            raise LogUnreadable(lease.tenant, delivery.error)
        if lease.last < after:
            raise LogTruncated(lease.tenant, lease.last, after)
        if differs(delivery.head, checkpoint):
            raise LogDiffers(lease.tenant, after)
        records = delivery.records
        if records and records[0].position <= after:
            records = [record for record in records if record.position > after]
            if not records:  # the group is behind the tables
                return None
        through = records[-1].position if records else after
        if not records or records[0].position > after + 1:
            records, through = await self._fill(lease, after, records)
        if records:
            self._sizes[lease.tenant] = mean_bytes(records)
        if through - after - len(records) > LOST_LIMIT_RECORDS:
            raise _first_gap(lease.tenant, after, records)
        return project(lease.tenant, after, records, through) if through > after else None

    async def _fill(self, lease: Lease, after: int, delivered: list[Record]) -> tuple[list[Record], int]:
        """What lies between the checkpoint and what was delivered, read from the log, then what was delivered; up to where.

        Records that were delivered to a projector that died, or before a database was restored, are read here. Records
        that somebody removed one by one are left out, up to a bound; the projection sets their positions aside.
        """
        given = lease.delivered if lease.delivered > after else lease.last
        through = min(delivered[0].position - 1 if delivered else given, after + self._batch_records)
        records: list[Record] = []
        position, lost, size = after, 0, 0
        while position < through:
            try:
                async for page in self._log.read(lease.tenant, position, through=through):
                    records += page
                    position = page[-1].position
                    size += sum([len(record.body) for record in page])
                    if size >= self._batch_bytes:
                        return records, position
            except Gap as gap:
                lost += gap.last - position
                if lost > LOST_LIMIT_RECORDS:
                    raise
                position = gap.last
        if delivered and through == delivered[0].position - 1:
            return records + delivered, delivered[-1].position
        return records, through

    def _stop(self, tenant: str, error: Exception) -> None:
        if self._stuck.get(tenant) != str(error):
            log_of_worker.error("%s: stopped: %s", tenant, error)
        self._stuck[tenant] = str(error)

    # -- all tenants ---------------------------------------------------------------------------------------------------

    async def run_to_end(self) -> int:
        """Apply until nothing is left that may be lease; how many records."""
        applied = 0
        await self.sweep()
        self._ready = set(range(PARTITIONS))
        while self._ready:
            applied += await self.run_once()
        return applied

    async def run(self, stop: asyncio.Event) -> None:
        """Apply until told to stop; the batch in hand is finished. Raises StoreReplaced."""
        listening = asyncio.create_task(self._listen())
        stopping = asyncio.create_task(stop.wait())
        next_poll = next_sweep = 0.0
        failures = applied = 0
        try:
            while not stop.is_set():
                try:
                    if time.monotonic() >= next_sweep:
                        await self.sweep()
                        if applied < self._batch_records:
                            self._store.maintain()
                        applied = 0
                        next_sweep = time.monotonic() + SWEEP_SECONDS * random.uniform(0.8, 1.2)
                    if time.monotonic() >= next_poll:
                        self._ready = set(range(PARTITIONS))
                        next_poll = time.monotonic() + POLL_SECONDS
                    if self._ready:
                        applied += await self.run_once()
                    else:
                        await self._idle(stopping, next_poll - time.monotonic())
                    failures = 0
                except StoreReplaced:
                    raise
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
        """Register the group, make ready what was forgotten, and name the tenants whose log lost records.

        Raises StoreReplaced, LogUnavailable, StoreUnavailable."""
        self._store.check_identity()
        if not self._registered:  # before the summary: what comes after it makes itself ready
            await self._consumer.requeue([])
            self._registered = True
        checkpoints = self._store.checkpoints()
        summaries = {summary.tenant: summary for summary in await self._log.summaries()}
        positions = [
            (tenant, checkpoints[tenant].position if tenant in checkpoints else 0)
            for tenant in summaries.keys() | checkpoints.keys()
        ]
        await self._consumer.requeue(positions)
        for tenant, position in positions:
            last = summaries[tenant].last if tenant in summaries else 0
            if last < position:
                self._stop(tenant, LogTruncated(tenant, last, position))

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
                async for partition in self._log.connection.listen(READY_CHANNEL):
                    self._ready.add(int(partition))
                    self._woken.set()
            except LogUnavailable:
                pass
            await asyncio.sleep(random.uniform(0.2, 0.6))


def _first_gap(tenant: str, after: int, records: Sequence[Record]) -> Gap:
    position = after
    for record in records:
        if record.position != position + 1:
            break
        position = record.position
    return Gap(tenant, position + 1, record.position - 1)


def group_of(store: Store) -> str:
    """The group of a database's tables; no two databases share one."""
    return f"projector:{store.tables_id}"
