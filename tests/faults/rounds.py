"""The fault test: rounds of load, faults, and checks of all invariants.

python -m tests.faults --rounds 40 --seed 1 --server valkey     (or redis6; --code DIR tests a copy of the packages)

It prints each fault with the round's seed, so that a failure can be played again: `--begin` names the round to start at.
Status 0: all held. 1: an invariant did not; the system's directory is kept. 3: the test itself broke.
"""

import argparse
import asyncio
import random
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.faults.clients import Client, EventMaker
from tests.faults.environment import Violation, failpoints, remove
from tests.faults.fold import log_keys
from tests.faults.invariants import check, digest_of_tables
from tests.faults.journal import LIMIT, LIMITED, TENANTS, Journal
from tests.faults.kinds import BACKUP_POINTS, DROP_POINTS, ERASE_POINTS, KINDS, POINTS, Kind
from tests.faults.scene import Scene
from tests.faults.system import NAMES, System
from tests.faults.tables import keep_for_tomorrow, to_the_end
from tests.faults.watch import Watcher

CLIENTS = 6
CLIENT_PAUSE_SECONDS = 0.03
ROUND_SECONDS = 0.6
QUIET_SECONDS = 15.0
FAULTS_A_ROUND = 2
EPOCH_ROUNDS = 20  # then a new system is started, or each check would take longer than the last
FULL_ROUNDS = 40  # after so many rounds every fault was injected
REBUILD_ROUNDS, BACKUP_ROUNDS = 8, 5
PARTS = {part for kind in KINDS.values() for part in kind.parts}


class Run:
    """One epoch: a system from its first start to its end."""

    def __init__(self, code: Path, server: str, seed: int, folder: Path) -> None:
        self.seed = seed
        self.journal = Journal(folder)
        self.system = System(code, server, folder)
        self.watcher: Watcher | None = None
        self.records = 0

    async def rounds(self, numbers: Sequence[int], decks: Sequence[Sequence[str]]) -> None:
        """Run rounds, each with its faults. Raises Violation."""
        await self.system.start()
        supervising = asyncio.create_task(self.system.supervise())
        self.watcher = Watcher(self.system)
        version = await self.system.ask(lambda client: client.info("server"))
        await to_the_end(self.system, "api", "tenant", "set", LIMITED, "--events-per-second", str(LIMIT))
        print(f"server {version.get('valkey_version') or version['redis_version']}, in {self.system.folder}", flush=True)
        try:
            for number, names in zip(numbers, decks, strict=True):
                await self.round(number, names)
            self.watcher.close()
            await self.system.end()
        finally:
            supervising.cancel()

    async def round(self, number: int, names: Sequence[str]) -> None:
        """Load with faults, wait until the system is level, check everything."""
        started = time.monotonic()
        print(f"round {number} (seed {self.seed}): {', '.join(names) or 'no fault'}", end=" … ", flush=True)
        await self._load(number, names)
        loaded = time.monotonic()
        await self._quiet()
        quiet = time.monotonic()
        self._check()
        if number % REBUILD_ROUNDS == REBUILD_ROUNDS - 1:
            await self._compare_with_rebuilt()
        if number % BACKUP_ROUNDS == 0:
            keep_for_tomorrow(self.system)
        spent = f"load {loaded - started:.1f} s, quiet after {quiet - loaded:.1f} s, checks {time.monotonic() - quiet:.1f} s"
        print(f"{self.records} records, {spent}", flush=True)

    async def _load(self, number: int, names: Sequence[str]) -> None:
        rng = random.Random(f"{self.seed}:{number}")
        clients = [self._client(number, client) for client in range(CLIENTS)]
        locks = {part: asyncio.Lock() for part in PARTS}
        stop = asyncio.Event()
        assert self.watcher is not None
        try:
            async with asyncio.TaskGroup() as group:
                sending = [group.create_task(client.run(stop)) for client in clients]
                faults = [asyncio.sleep(ROUND_SECONDS)]
                for name in names:
                    own = random.Random(f"{self.seed}:{number}:{name}")
                    scene = Scene(self.system, self.journal, self.watcher, clients, own, locks)
                    faults.append(inject(KINDS[name], scene, rng.uniform(0.05, ROUND_SECONDS)))
                for fault in [group.create_task(fault) for fault in faults]:
                    await fault
                stop.set()
                await asyncio.gather(*sending)
        except* Violation as errors:
            raise errors.exceptions[0] from None

    def _client(self, number: int, client: int) -> Client:
        rng = random.Random(f"{self.seed}:{number}:client {client}")
        maker = EventMaker(rng, self.journal, client, number)
        return Client(self.system.port, self.journal, rng, maker, pause_seconds=CLIENT_PAUSE_SECONDS)

    async def _quiet(self) -> None:
        """Wait until every tenant is level with nothing pending, twice in a row.

        Raises Violation after QUIET_SECONDS.
        """
        deadline = time.monotonic() + QUIET_SECONDS
        before = None
        while True:
            levels = await asyncio.to_thread(self._levels)
            if before == levels and all(last == at and not pending for last, at, pending in levels.values()):
                return
            before = levels
            if time.monotonic() > deadline:
                output = "\n".join(f"--- {name}\n{self.system.tail(name)}" for name in NAMES)
                raise Violation(f"not level within {QUIET_SECONDS} s (last position, checkpoint, pending): {levels}\n{output}")
            await asyncio.sleep(0.03)

    def _levels(self) -> dict[str, tuple[int, int, int]]:
        """Each tenant's last position, checkpoint and number of pending records."""
        levels = {}
        with suppress(OSError):
            for tenant, key in log_keys(self.system.client).items():
                last = self.system.client.xinfo_stream(key)["last-generated-id"]
                pending = sum(group["pending"] for group in self.system.client.xinfo_groups(key))
                levels[tenant] = (int(last.split(b"-")[0]), 0, pending)
            with self.system.snapshot() as connection:
                checkpoints = dict(connection.execute("SELECT tenant_id, position FROM checkpoints"))
            return {tenant: (last, checkpoints.get(tenant, 0), n) for tenant, (last, _, n) in levels.items()}
        return dict.fromkeys(TENANTS, (-1, 0, 0))

    def _check(self) -> None:
        assert self.watcher is not None
        if self.watcher.problems:
            raise Violation("\n".join(self.watcher.problems))
        self.records = check(self.system, self.journal)

    async def _compare_with_rebuilt(self) -> None:
        """Verify finds nothing, and a rebuild gives the same tables."""
        before = digest_of_tables(self.system)
        await to_the_end(self.system, "projector", "verify")
        await to_the_end(self.system, "projector", "rebuild")
        after = digest_of_tables(self.system)
        if before != after:
            raise Violation(f"a rebuild gives other tables: {before}, then {after}")
        self._check()

    def close(self) -> None:
        """Leave no process and no open file."""
        if self.watcher is not None:
            self.watcher.close()
        self.system.destroy()
        self.journal.close()


async def inject(kind: Kind, scene: Scene, delay_seconds: float) -> None:
    """Inject a fault after a delay, when no other fault uses the same parts."""
    await asyncio.sleep(delay_seconds)
    async with scene.alone_with(kind.parts):
        await kind.act(scene)


def decks_of(seed: int, begin: int, rounds: int, only: Sequence[str] | None) -> list[list[str]]:
    """The faults of each round: those of `only`, or all in shuffled order."""
    if only is not None:
        return [list(only)] * rounds
    rng = random.Random(seed)
    cards: list[str] = []
    while len(cards) < (begin + rounds) * FAULTS_A_ROUND:
        cards += rng.sample(sorted(KINDS), len(KINDS))
    places = range(begin * FAULTS_A_ROUND, (begin + rounds) * FAULTS_A_ROUND, FAULTS_A_ROUND)
    return [list(dict.fromkeys(cards[place : place + FAULTS_A_ROUND])) for place in places]


async def run(code: Path, server: str, seed: int, begin: int, rounds: int, only: Sequence[str] | None) -> None:
    """All rounds, each epoch in a directory of its own. Raises Violation."""
    if failpoints(code) != POINTS:
        raise Violation(
            f"these failpoints are named in the code or in tests/faults/kinds.py, and not in both: {failpoints(code) ^ POINTS}"
        )
    reached = set()
    decks = decks_of(seed, begin, rounds, only)
    numbers = list(range(begin, begin + rounds))
    while numbers:
        count = min(len(numbers), EPOCH_ROUNDS - numbers[0] % EPOCH_ROUNDS)
        folder = Path(tempfile.mkdtemp(prefix="pf-"))
        epoch = Run(code, server, seed, folder)
        try:
            await epoch.rounds(numbers[:count], decks[:count])
        finally:
            epoch.close()
        remove(folder)
        print(f"answers {dict(epoch.journal.statuses)}, points {dict(epoch.system.reached)}", flush=True)
        reached |= set(epoch.system.reached)
        numbers, decks = numbers[count:], decks[count:]
    missed = POINTS - reached - {*DROP_POINTS, *BACKUP_POINTS, *ERASE_POINTS}
    if only is None and rounds >= FULL_ROUNDS and missed:
        raise Violation(f"no process ended at the failpoints {missed}")


def main() -> int:
    """Parse the command line and run; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time")
    parser.add_argument("--begin", type=int, default=0, metavar="ROUND", help="the first round's number")
    parser.add_argument("--server", choices=("valkey", "redis6"), default="valkey")
    parser.add_argument(
        "--code", type=Path, default=Path(__file__).parents[2], help="where streams, projector, api and Procfile are"
    )
    parser.add_argument("--only", default=None, metavar="FAULT,…", help=f"these in every round, or none: {', '.join(KINDS)}")
    options = parser.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    only = None if options.only is None else [name for name in options.only.split(",") if name != "none"]
    if unknown := set(only or ()) - KINDS.keys():
        parser.error(f"unknown faults: {', '.join(sorted(unknown))}")
    try:
        asyncio.run(run(options.code.resolve(), options.server, seed, options.begin, options.rounds, only))
    except Violation as violation:
        print(f"\nVIOLATED: {violation}\nplay it again with --seed {seed} --server {options.server}", flush=True)
        return 1
    except BaseException:
        traceback.print_exc()
        return 3
    return 0
