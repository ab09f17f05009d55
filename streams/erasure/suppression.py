"""The names that the door keeps out: salted, for a tenant's forgotten events, so that one that is sent again is a duplicate.

The notes in the log say the same; whoever brings a log to a server brings the names there, too.
"""

from collections.abc import Mapping, Sequence

from streams import control
from streams.append import CALL_LIMIT_EVENTS, refusal_of
from streams.connection import Connection
from streams.erasure.subject import Name, names_in
from streams.event import Record
from streams.keys import keys_of
from streams.validation import Rejected


async def suppress(
    connection: Connection,
    tenant: str,
    salt: str,
    names: Mapping[str, int],
    dedup_keys: Mapping[str, tuple[int, Name]] | None = None,
) -> None:
    """Have the door answer `duplicate` for salted names, with their positions; of `claims` the names are known, and what the door
    remembered of them goes. Names with another salt are replaced. Raises LogFull, LogUnavailable."""
    keys = keys_of(tenant)
    known = list((dedup_keys or {}).items())
    unknown = [(name, at) for name, at in names.items() if name not in (dedup_keys or {})]
    for begin in range(0, len(known), CALL_LIMIT_EVENTS):
        part = known[begin : begin + CALL_LIMIT_EVENTS]
        to_remove = [keys.dedup + event_hash for _, (_, (event_hash, _)) in part]
        words = [word for name, (at, (_, hash_parts)) in part for word in (name, at, hash_parts)]
        await _run(connection, [keys.suppressed, *to_remove], [salt, *words])
    for begin in range(0, len(unknown), CALL_LIMIT_EVENTS):
        words = [word for name, at in unknown[begin : begin + CALL_LIMIT_EVENTS] for word in (name, at, "")]
        await _run(connection, [keys.suppressed], [salt, *words])


async def _run(connection: Connection, names: Sequence[str], arguments: Sequence[object]) -> None:
    [reply] = await connection.run("suppress", [(names, arguments)])
    if isinstance(reply, Exception):
        raise refusal_of(reply)


async def suppress_erased(connection: Connection, tenant: str, records: Sequence[Record]) -> None:
    """The same for the names in those of some records that are control. Raises LogFull, LogUnavailable."""
    for record in records:
        if record.version == control.VERSION:
            try:
                control_record = control.parse(record)
            except Rejected:
                continue
            if isinstance(control_record, control.Erase):
                await suppress(connection, tenant, control_record.salt, names_in(control_record))
