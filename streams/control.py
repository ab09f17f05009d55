"""Control records: what is to be done to the tables so far.

A control record stands in the log like an event, at its own position, so tables that are rebuilt do the same again.
"""

import hashlib
import time
from typing import Annotated

import msgspec

from streams.connection import Connection
from streams.errors import PenstockError
from streams.event import Record
from streams.keys import keys_of, queue_arguments
from streams.validation import Rejected

VERSION = 2  # of the record
MAX_POSITIONS = 500  # of a control record, so that it is no larger than an event
Position = Annotated[int, msgspec.Meta(ge=1)]
Positions = Annotated[list[Position], msgspec.Meta(min_length=1, max_length=MAX_POSITIONS)]


class LogMissing(PenstockError):
    """The tenant has no log, so no control record can follow."""

    def __init__(self, tenant: str) -> None:
        super().__init__(f"{tenant} has no log")


class Drop(msgspec.Struct, frozen=True, gc=False, tag_field="action", tag="drop", forbid_unknown_fields=True):
    """These records leave quarantine and are counted as dropped.

    All positions lie before the control record's own.
    """

    positions: Positions


class Erase(msgspec.Struct, frozen=True, gc=False, tag_field="action", tag="erase", forbid_unknown_fields=True):
    """The records at these positions are erased.

    All positions lie before the control record's own. The log was searched for the data subject up to `through`. Nothing here
    names the subject: `subject` is a digest with the tenant's `salt`. `names` has a salted identity for each position: an event
    of that identity that comes later is suppressed. A name is empty where the record has no identity, or the identity of
    another record that is not erased.
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
    """The control record in a record.

    Raises Rejected when this version does not know it: it is never half applied.
    """
    try:
        control_record: ControlRecord = _decode(record.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected("", f"is not a control record: {error}") from None
    if isinstance(control_record, Erased):
        return control_record
    newest = max(control_record.positions)
    if newest >= record.position:
        raise Rejected("positions", "must lie before the control record's own", limit=record.position - 1, value=newest)
    if isinstance(control_record, Erase) and len(control_record.names) != len(control_record.positions):
        count = len(control_record.positions)
        raise Rejected("names", "must be as many as positions", limit=count, value=len(control_record.names))
    return control_record


def erased_from(record: Record) -> Record:
    """The record that replaces an erased record.

    It keeps the time of receipt, by which a log can be cut.
    """
    return Record(record.position, record.received_at_us, VERSION, ERASED)


def is_erased(record: Record) -> bool:
    """Whether a record was erased."""
    return record.version == VERSION and record.body == ERASED


def salted_name(salt: str, event_hash: str, hash_parts: str) -> str:
    """A suppressed identity as control records and the server keep it.

    The append script makes the same.
    """
    return hashlib.sha1(f"{salt}{event_hash}{hash_parts}".encode(), usedforsecurity=False).hexdigest()


async def append(connection: Connection, tenant: str, control_record: ControlRecord) -> int:
    """Put a control record at the end of a tenant's log; return its position.

    Raises LogMissing, TenantDeleted, LogFull, LogRefused, LogUnavailable (it may have been written: look at the log or the
    tables before you try again).
    """
    keys = keys_of(tenant)
    names = [keys.log, keys.tenants, keys.groups, keys.deleted]
    arguments = [*queue_arguments(tenant), time.time_ns() // 1000, _encode(control_record)]
    position = int(await connection.run("control", names, arguments))
    if not position:
        raise LogMissing(tenant)
    return position
