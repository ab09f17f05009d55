"""Notes: records that are no events. A note says what is to be done to the tables that the records before it made.

It stands in the log as an event does, at a position of its own, so that tables which are made again do the same again.
"""

import hashlib
import time
from typing import Annotated

import msgspec

from streams.connection import Connection
from streams.errors import LogFull, LogUnavailable, PenstockError, TenantDeleted
from streams.event import Record
from streams.keys import READY_CHANNEL, keys_of, ready_prefix
from streams.validation import Rejected

VERSION = 2  # of the record; events have 1
MAX_POSITIONS = 500  # of a note, so that it is no larger than an event
Position = Annotated[int, msgspec.Meta(ge=1)]
Positions = Annotated[list[Position], msgspec.Meta(min_length=1, max_length=MAX_POSITIONS)]


class LogMissing(PenstockError):
    """The tenant has no log: there is nothing that a note could be about."""

    def __init__(self, tenant: str) -> None:
        super().__init__(f"{tenant} has no log")


class Drop(msgspec.Struct, frozen=True, gc=False, tag_field="action", tag="drop", forbid_unknown_fields=True):
    """The records at these positions, all before the note's own, leave quarantine and are counted as dropped."""

    positions: Positions


class Erase(msgspec.Struct, frozen=True, gc=False, tag_field="action", tag="erase", forbid_unknown_fields=True):
    """The records at these positions, all before the note's own, are erased: their subject is forgotten up to `through`.

    Nothing here says who that is: `subject` is a digest with the tenant's `salt`. `names` are salted, too, one for each position:
    what comes later by such a name stays out; empty where a record has no name, or one that is somebody else's event.
    """

    salt: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
    subject: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    through: Position
    positions: Positions
    names: list[Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{40})?$")]]


class Erased(msgspec.Struct, frozen=True, gc=False, tag_field="action", tag="erased", forbid_unknown_fields=True):
    """What stands at the position of a record that was erased."""


ControlRecord = Drop | Erase | Erased
_decode = msgspec.json.Decoder(ControlRecord).decode
_encode = msgspec.json.Encoder().encode
ERASED = _encode(Erased())


def parse(record: Record) -> ControlRecord:
    """The note that a record is. Raises Rejected when it is none that this version knows: what is unknown is never half done."""
    try:
        control_record: ControlRecord = _decode(record.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected("", f"is not a note: {error}") from None
    if isinstance(control_record, Erased):
        return control_record
    if max(control_record.positions) >= record.position:
        raise Rejected(
            "positions", "must lie before the note's own", limit=record.position - 1, value=max(control_record.positions)
        )
    if isinstance(control_record, Erase) and len(control_record.names) != len(control_record.positions):
        raise Rejected(
            "names", "must be as many as positions", limit=len(control_record.positions), value=len(control_record.names)
        )
    return control_record


def erased_from(record: Record) -> Record:
    """What stands at a record's position once it was erased: when it was received stays, for a log is cut by it."""
    return Record(record.position, record.received_at_us, VERSION, ERASED)


def is_erased(record: Record) -> bool:
    """Whether a record was erased."""
    return record.version == VERSION and record.body == ERASED


def salted_name(salt: str, event_hash: str, hash_parts: str) -> str:
    """An event's name as notes and the door keep it when it was forgotten. The append script makes the same."""
    return hashlib.sha1(f"{salt}{event_hash}{hash_parts}".encode(), usedforsecurity=False).hexdigest()


async def append(connection: Connection, tenant: str, control_record: ControlRecord) -> int:
    """Put a note at the end of a tenant's log; its position. Raises LogMissing, TenantDeleted, LogFull, LogUnavailable (it may
    have been written: whoever asks again looks at the tables first)."""
    keys = keys_of(tenant)
    names = [keys.log, keys.tenants, keys.groups, keys.deleted]
    arguments = [
        tenant,
        keys.digest,
        ready_prefix(keys.partition),
        keys.partition,
        READY_CHANNEL,
        time.time_ns() // 1000,
        _encode(control_record),
    ]
    [reply] = await connection.run("control", [(names, arguments)])
    if isinstance(reply, Exception):
        raise _refusal(tenant, str(reply))
    return int(reply)


def _refusal(tenant: str, text: str) -> Exception:
    if "DELETED" in text:
        return TenantDeleted()
    if "NOLOG" in text:
        return LogMissing(tenant)
    if "OOM" in text or "maxmemory" in text:
        return LogFull()
    return LogUnavailable(text)
