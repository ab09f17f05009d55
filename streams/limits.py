"""The limits of a tenant: two rates and a quota.

The append script applies them.
"""

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """How much a tenant may send.

    Accepted events and bytes a second, and events a day (UTC); 0 is no limit. A rate is a token bucket that holds one second's
    worth. Bytes are counted as the log stores events. The bucket of bytes may go below zero, so an event larger than one
    second's worth is accepted at some time.
    """

    events_per_second: int = 0
    bytes_per_second: int = 0
    events_per_day: int = 0


LIMIT_NAMES = Limits.__struct_fields__
NO_LIMITS = Limits()
