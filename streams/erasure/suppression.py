"""Suppression: an erased event that is sent again is answered `duplicate`.

The server keeps the salted identities of a tenant's erased events. The control records in the log name the same, so an
import and a recovery bring the identities to the server, too.
"""

from collections.abc import Mapping, Sequence

from streams import control
from streams.append import CALL_LIMIT_EVENTS
from streams.connection import Connection
from streams.erasure.subject import Identity, names_in
from streams.event import Record
from streams.keys import keys_of
from streams.validation import Rejected


async def suppress(
    connection: Connection,
    tenant: str,
    salt: str,
    names: Mapping[str, int],
    identities: Mapping[str, tuple[int, Identity]] | None = None,
) -> None:
    """Suppress salted names, each with the position of its event.

    Names of another salt are removed.

    Where `identities` gives the identity of a name, its dedup key is removed, too. Raises LogFull, LogRefused, LogUnavailable.
    """
    keys = keys_of(tenant)
    known = list((identities or {}).items())
    for start in range(0, len(known), CALL_LIMIT_EVENTS):
        part = known[start : start + CALL_LIMIT_EVENTS]
        dedup_keys = [keys.dedup + event_hash for _, (_, (event_hash, _)) in part]
        triples = [value for name, (position, (_, hash_parts)) in part for value in (name, position, hash_parts)]
        await connection.run("suppress", [keys.suppressed, *dedup_keys], [salt, *triples])
    unknown = [(name, position) for name, position in names.items() if name not in (identities or {})]
    for start in range(0, len(unknown), CALL_LIMIT_EVENTS):
        triples = [value for name, position in unknown[start : start + CALL_LIMIT_EVENTS] for value in (name, position, "")]
        await connection.run("suppress", [keys.suppressed], [salt, *triples])


async def suppress_erased(connection: Connection, tenant: str, records: Sequence[Record]) -> None:
    """Suppress the names in the control records among these records.

    Raises LogFull, LogRefused, LogUnavailable.
    """
    for record in records:
        if record.version == control.VERSION:
            try:
                control_record = control.parse(record)
            except Rejected:
                continue
            if isinstance(control_record, control.Erase):
                await suppress(connection, tenant, control_record.salt, names_in(control_record))
