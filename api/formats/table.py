"""Which path speaks which format."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from api.formats import segment
from api.formats.format import Format, Parts


class Foreign(msgspec.Struct, frozen=True):
    """A path of foreign clients, answered with and without a slash at its end. `choose` gives the format that a request speaks,
    or raises Unreadable. `summary` says who sends there, `parameters` what those of the path may be, `success` the status."""

    name: str
    methods: tuple[str, ...]
    path: str
    choose: Callable[[Parts], Format]
    summary: str
    parameters: Mapping[str, Any] = {}
    success: int = 200


FOREIGN = [
    Foreign(
        "segment",
        ("POST",),
        "/v1/{call}",
        segment.choose,
        "Messages of Segment's and RudderStack's SDKs.",
        {"call": Literal[tuple(segment.CALLS)]},
    ),
]
