"""Notes: records that are no events. A note says what is to be done to the tables that the records before it made.

It stands in the log as an event does, at a position of its own, so that tables which are made again do the same again.
"""

import time
from typing import Annotated

import msgspec

from streams.append import LogFull, TenantErased
from streams.event import Record, Rejected
from streams.keys import WAKE_CHANNEL, keys_of, ready_prefix
from streams.wire import LogUnavailable, Wire

VERSION = 2  # of the record; events have 1
LIMIT_POSITIONS = 500  # of a note, so that it is no larger than an event


class LogMissing(Exception):
    """The tenant has no log: there is nothing that a note could be about."""

    def __init__(self, tenant: str) -> None:
        super().__init__(f"{tenant} has no log")


class Drop(msgspec.Struct, frozen=True, gc=False, tag_field="act", tag="drop", forbid_unknown_fields=True):
    """The records at these positions, all before the note's own, leave quarantine and are counted as dropped."""

    positions: Annotated[list[Annotated[int, msgspec.Meta(ge=1)]], msgspec.Meta(min_length=1, max_length=LIMIT_POSITIONS)]


class _Named(msgspec.Struct, frozen=True):
    act: str


Note = Drop
_decode_name = msgspec.json.Decoder(_Named).decode  # first: a type that stands alone may be decoded without its tag
_decode = msgspec.json.Decoder(Note).decode
_encode = msgspec.json.Encoder().encode


def parse(record: Record) -> Note:
    """The note that a record is. Raises Rejected when it is none that this version knows: what is unknown is never half done."""
    try:
        _decode_name(record.body)
        note = _decode(record.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected("", f"is not a note: {error}") from None
    if max(note.positions) >= record.position:
        raise Rejected("positions", "must lie before the note's own", limit=record.position - 1, value=max(note.positions))
    return note


async def append(wire: Wire, tenant: str, note: Note) -> int:
    """Put a note at the end of a tenant's log; its position. Raises LogMissing, TenantErased, LogFull, LogUnavailable (it may
    have been written: whoever asks again looks at the tables first)."""
    keys = keys_of(tenant)
    names = [keys.log, keys.tenants, keys.groups, keys.erased]
    arguments = [
        tenant, keys.digest, ready_prefix(keys.partition), keys.partition, WAKE_CHANNEL, time.time_ns() // 1000, _encode(note)
    ]  # fmt: skip
    [reply] = await wire.run("note", [(names, arguments)])
    if isinstance(reply, Exception):
        raise _refusal(tenant, str(reply))
    return int(reply)


def _refusal(tenant: str, text: str) -> Exception:
    if "ERASED" in text:
        return TenantErased()
    if "NOLOG" in text:
        return LogMissing(tenant)
    if "OOM" in text or "maxmemory" in text:
        return LogFull()
    return LogUnavailable(text)
