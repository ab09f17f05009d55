"""How much a tenant may send: two rates and a quota, each counted in events that were accepted. The append script decides."""

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """At most so many events and bytes a second, and events a day (UTC); 0 is no limit.

    A rate is a token bucket (a burst of one second's worth); bytes are those of events as the log keeps them, and may be owed,
    so that an event larger than a second's worth is not refused for ever.
    """

    events_per_second: int = 0
    bytes_per_second: int = 0
    events_per_day: int = 0


LIMIT_NAMES = Limits.__struct_fields__
NO_LIMITS = Limits()
