"""The worker applies the records of tenants that have lag.

It leases tenants, applies their records in one transaction, and gives the leases back.
"""

import asyncio
import logging
import random
import time

from projector.divergence import DeletedTenantHasLog, LogDiffers, LogTruncated, LogUnreadable
from projector.live.deliveries import next_batch
from projector.live.scheduling import READ_AHEAD, BatchLimits, LeasedTenant, advance, plan
from projector.projection import Batch
from projector.store import OtherProjection, Store, StoreReplaced
from streams import Consumer, Delivery, Log
from streams.errors import Gap, LogRefused, LogUnavailable, Retryable
from streams.keys import PARTITIONS, READY_CHANNEL
from streams.runtime import failpoint

log_of_worker = logging.getLogger("projector")

POLL_SECONDS = 1.0
SWEEP_SECONDS = 5.0
STUCK_SECONDS = 5.0


class Worker:
    """One projector.

    All projectors of one database are consumers of one group.
    """

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
        self._limits = BatchLimits(batch_records, batch_bytes)
        self._consumer = Consumer(log.connection, group=group_of(store), lease_owner=lease_owner, lease_seconds=lease_seconds)
        self._ready = set(range(PARTITIONS))
        self._woken = asyncio.Event()
        self._sizes: dict[str, int] = {}
        self._stuck: dict[str, str] = {}
        self._registered = False

    # -- one turn ------------------------------------------------------------------------------------------------------

    async def run_once(self) -> int:
        """Lease, read, apply, acknowledge, release; how many records were applied.

        A turn reads up to READ_AHEAD batches. While a batch is being written, the next one is read and the one before is
        acknowledged.
        """
        tenants = await self._lease()
        failpoint("after_lease_before_read")
        if not tenants:
            return 0
        applied = 0
        parts = plan(tenants, self._sizes, self._limits)
        reading = asyncio.create_task(self._consumer.read(parts[0]))
        acknowledging = []
        try:
            for following in [*parts[1:], None]:
                deliveries = await reading
                if following is not None:
                    reading = asyncio.create_task(self._consumer.read(following))
                batches = await self._batches(tenants, deliveries)
                await asyncio.sleep(0)  # so that the read is sent
                failpoint("after_read_before_apply")
                applied += advance(tenants, batches, self._store.apply(batches) if batches else [])
                failpoint("after_commit_before_acknowledge")
                acknowledging.append(asyncio.create_task(self._acknowledge(tenants)))
            await asyncio.gather(*acknowledging)
        finally:
            for task in (reading, *acknowledging):
                task.cancel()
        failpoint("after_acknowledge_before_release")
        await self._consumer.release([leased.release() for leased in tenants.values()])
        return applied

    async def _lease(self) -> dict[str, LeasedTenant]:
        """The tenants of this turn, with their checkpoints.

        Raises StoreReplaced: another database has another group.
        """
        self._store.check_identity()
        partitions, self._ready = sorted(self._ready), set()  # a wake-up that comes meanwhile stays
        taken = await self._consumer.lease(partitions, records=self._limits.records * READ_AHEAD)
        self._ready |= {partition for partition, leases in taken.items() if leases}
        leases = {lease.tenant: lease for leases in taken.values() for lease in leases}
        states = self._store.states(leases)
        return {tenant: LeasedTenant(leases[tenant], state.checkpoint, state.deleted) for tenant, state in states.items()}

    async def _batches(self, tenants: dict[str, LeasedTenant], deliveries: dict[str, Delivery]) -> list[Batch]:
        """The batches that deliveries make.

        A tenant whose log cannot be applied is stopped; the others go on.
        """
        batches = []
        for tenant, delivery in deliveries.items():
            leased = tenants[tenant]
            leased.served = True
            leased.pending += delivery.pending
            if leased.ended:
                continue
            try:
                batch = await next_batch(self._log, leased, delivery, self._limits)
            except (LogTruncated, LogDiffers, DeletedTenantHasLog, LogUnreadable, Gap) as error:
                self._stop(tenant, error)
                leased.ended, leased.delay_seconds = True, STUCK_SECONDS
                continue
            self._stuck.pop(tenant, None)
            if leased.record_bytes:
                self._sizes[tenant] = leased.record_bytes
            if batch:
                batches.append(batch)
        return batches

    async def _acknowledge(self, tenants: dict[str, LeasedTenant]) -> None:
        """Acknowledge what is in the tables."""
        applied = [(tenant, leased.acknowledgeable()) for tenant, leased in tenants.items() if leased.pending]
        await self._consumer.acknowledge([(tenant, entries) for tenant, entries in applied if entries])

    def _stop(self, tenant: str, error: Exception) -> None:
        """Log why a tenant is stopped, once for each reason."""
        if self._stuck.get(tenant) != str(error):
            log_of_worker.error("%s: stopped: %s", tenant, error)
        self._stuck[tenant] = str(error)

    # -- all tenants ---------------------------------------------------------------------------------------------------

    async def run_to_end(self) -> int:
        """Apply until no tenant has lag that can be leased; how many records."""
        applied = 0
        await self.sweep()
        self._ready = set(range(PARTITIONS))
        while self._ready:
            applied += await self.run_once()
        return applied

    async def run(self, stop: asyncio.Event) -> None:
        """Apply until `stop` is set. Raises StoreReplaced.

        A batch that is being written then is finished.
        """
        listening = asyncio.create_task(self._listen())
        stopping = asyncio.create_task(stop.wait())
        next_poll = next_sweep = 0.0
        failures = applied = 0
        try:
            while not stop.is_set():
                try:
                    if time.monotonic() >= next_sweep:
                        await self.sweep()
                        if applied < self._limits.records:
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
                except (Retryable, LogRefused, OtherProjection) as error:
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
        """Queue tenants that have lag, and log those that lost records.

        The first time it also registers the group.

        Raises StoreReplaced, LogUnavailable, StoreUnavailable.
        """
        self._store.check_identity()
        if not self._registered:  # before the summaries: a later append queues its tenant itself
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
        """Wait for a ready partition, the end of a time, or `stop`."""
        self._woken.clear()
        waking = asyncio.create_task(self._woken.wait())
        await asyncio.wait([waking, stopping], timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
        waking.cancel()

    async def _listen(self) -> None:
        """Hear which partitions have ready tenants.

        It is only a hint: the next poll finds what was missed.
        """
        while True:
            try:
                async for partition in self._log.connection.listen(READY_CHANNEL):
                    self._ready.add(int(partition))
                    self._woken.set()
            except LogUnavailable:
                pass
            await asyncio.sleep(random.uniform(0.2, 0.6))


def group_of(store: Store) -> str:
    """The consumer group of a database's tables. No two databases share one."""
    return f"projector:{store.tables_id}"
