"""The figure of a foreign endpoint: Segment's batches beside native ones."""

from collections.abc import Callable

from bench.ingest import BATCH_CONNECTIONS, post_batches
from bench.report import Figure, ratio_of
from bench.system import Failed, System
from bench.workload import tenant_names
from streams import keys_of

Say = Callable[[str], None]
BATCH_EVENTS = 100
TENANTS = 20


def foreign(say: Say, *, quick: bool) -> list[Figure]:
    """Events a second in Segment's batches, beside native batches.

    20 tenants; the same events.
    """
    rounds, events = (2, 20_000) if quick else (7, 60_000)
    ours, references = [], []
    with System() as system:
        api = system.start_api()
        for number in range(-1, rounds):
            rates = {
                format: post_batches(
                    system, api, tenants=TENANTS, events=events, seed=f"{format}-{number}", size=BATCH_EVENTS, format=format
                )
                for format in ("segment", "native")
            }
            if number >= 0:
                ours.append(rates["segment"])
                references.append(rates["native"])
                mine, other = ours[-1], references[-1]
                say(f"foreign: Segment {mine:,.0f} events/s, native {other:,.0f}, ratio {mine / other:.2f}")
        _check(system, 2 * events * (rounds + 1))
    what = f"Segment's batches of {BATCH_EVENTS}"
    return [ratio_of(what, ours, references, target=0.7, unit="events/s", remark=f"{BATCH_CONNECTIONS} connections")]


def _check(system: System, events: int) -> None:
    """Check that each event is in the logs once; the answers do not say so."""
    records = sum(system.redis.xlen(keys_of(tenant).log) for tenant in tenant_names(TENANTS))
    if records != events:
        raise Failed(f"{events} events were sent, and {records} are in the logs")
