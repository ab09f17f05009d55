"""Which path speaks which format."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from api.formats import amplitude, cloudevents, mixpanel, posthog, segment, snowplow
from api.formats.format import Format, Parts


class Foreign(msgspec.Struct, frozen=True):
    """A path of foreign clients, answered with and without a slash at its end. `choose` gives the format that a request speaks,
    or raises Unreadable. `summary` says who sends there, `parameters` what those of the path may be, `success` the status, and
    `media_types` what the answer may be then. A parameter that is called `key` is one: no line that is logged has it."""

    name: str
    methods: tuple[str, ...]
    path: str
    choose: Callable[[Parts], Format]
    summary: str
    parameters: Mapping[str, Any] = {}
    success: int = 200
    media_types: tuple[str, ...] = ("application/json",)


GET, POST, BOTH = ("GET",), ("POST",), ("GET", "POST")
TEXT, GIF, ONE = ("text/plain",), ("image/gif",), ("text/plain", "application/json")
TP2 = "/com.snowplowanalytics.snowplow/tp2"
KEY = {"key": str}
CALLS = {"call": Literal[tuple(segment.CALLS)]}

FOREIGN = [
    Foreign("segment", ("POST",), "/v1/{call}", segment.choose, "Messages of Segment's and RudderStack's SDKs.", CALLS),
    Foreign("beacon", ("POST",), "/beacon/v1/{call}", segment.choose, "The same from RudderStack's beacons.", CALLS),
    Foreign("jitsu", ("POST",), "/api/s/{call}", segment.choose_jitsu, "Messages of Jitsu's SDKs in browsers.", CALLS),
    Foreign("jitsuServer", ("POST",), "/api/s/s2s/{call}", segment.choose_jitsu, "Messages of Jitsu's other SDKs.", CALLS),
    Foreign(
        "cloudevents",
        ("POST",),
        "/api/v1/events",
        cloudevents.choose,
        "CloudEvents 1.0 in JSON: structured, batched or binary; OpenMeter's SDKs, too.",
        success=204,
    ),
    Foreign("posthogBatch", ("POST",), "/batch", amplitude.choose_batch, "Batches of PostHog's server SDKs, and of Amplitude's."),
    Foreign("posthogE", ("POST",), "/e", posthog.choose, "Events of PostHog's browser SDK."),
    Foreign("posthogCapture", ("POST",), "/capture", posthog.choose, "Events of PostHog's older SDKs."),
    Foreign("posthogEvents", ("POST",), "/i/v0/e", posthog.choose, "Events of PostHog's SDKs, under their other path."),
    Foreign("amplitude", ("POST",), "/2/httpapi", amplitude.choose, "Events of Amplitude's SDKs."),
    Foreign("mixpanelTrack", BOTH, "/track", lambda _: mixpanel.EVENTS, "Events of Mixpanel's SDKs.", media_types=ONE),
    Foreign("mixpanelEngage", BOTH, "/engage", lambda _: mixpanel.PROFILES, "Users of Mixpanel's SDKs.", media_types=ONE),
    Foreign("mixpanelGroups", BOTH, "/groups", lambda _: mixpanel.PROFILES, "Groups of Mixpanel's SDKs.", media_types=ONE),
    Foreign("mixpanelImport", POST, "/import", lambda _: mixpanel.IMPORT, "Past events, for Mixpanel.", media_types=ONE),
    Foreign("snowplow", POST, TP2, lambda _: snowplow.BATCH, "Events of Snowplow's trackers.", media_types=TEXT),
    Foreign("snowplowKey", POST, "/{key}" + TP2, lambda _: snowplow.BATCH, "The same with a key.", KEY, media_types=TEXT),
    Foreign("snowplowPixel", GET, "/i", lambda _: snowplow.PIXELS, "One event of Snowplow's trackers.", media_types=GIF),
    Foreign("snowplowPixelKey", GET, "/{key}/i", lambda _: snowplow.PIXELS, "The same with a key.", KEY, media_types=GIF),
]
