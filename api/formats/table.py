"""Which path speaks which format."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from api.formats import amplitude, posthog, segment
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
    Foreign("posthogBatch", ("POST",), "/batch", amplitude.choose_batch, "Batches of PostHog's server SDKs, and of Amplitude's."),
    Foreign("posthogE", ("POST",), "/e", posthog.choose, "Events of PostHog's browser SDK."),
    Foreign("posthogCapture", ("POST",), "/capture", posthog.choose, "Events of PostHog's older SDKs."),
    Foreign("posthogEvents", ("POST",), "/i/v0/e", posthog.choose, "Events of PostHog's SDKs, under their other path."),
    Foreign("amplitude", ("POST",), "/2/httpapi", amplitude.choose, "Events of Amplitude's SDKs."),
]
