"""The paths of foreign clients, and the format of each."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from api.formats import amplitude, cloudevents, mixpanel, posthog, segment, snowplow
from api.formats.format import ForeignRequest, Format


class ForeignRoute(msgspec.Struct, frozen=True):
    """A path of foreign clients, with or without a slash at its end.

    - `choose` gives the format of a request, or raises Unreadable.
    - `summary` says which clients send to this path.
    - `parameters` gives the type of each path parameter. A parameter named `key` holds a key, which is masked in logs.
    - `success` is the status of a successful answer, `media_types` are the media types that it may have.
    """

    name: str
    methods: tuple[str, ...]
    path: str
    choose: Callable[[ForeignRequest], Format]
    summary: str
    parameters: Mapping[str, Any] = {}
    success: int = 200
    media_types: tuple[str, ...] = ("application/json",)


GET, POST, BOTH = ("GET",), ("POST",), ("GET", "POST")
TEXT, GIF, TEXT_OR_JSON = ("text/plain",), ("image/gif",), ("text/plain", "application/json")
TP2 = "/com.snowplowanalytics.snowplow/tp2"
KEY = {"key": str}
CALLS = {"call": Literal[tuple(segment.CALLS)]}

FOREIGN_ROUTES = [
    ForeignRoute("segment", POST, "/v1/{call}", segment.choose, "Messages of Segment's and RudderStack's SDKs.", CALLS),
    ForeignRoute("beacon", POST, "/beacon/v1/{call}", segment.choose, "Messages of RudderStack's beacons.", CALLS),
    ForeignRoute("jitsu", POST, "/api/s/{call}", segment.choose_jitsu, "Messages of Jitsu's browser SDK.", CALLS),
    ForeignRoute("jitsuServer", POST, "/api/s/s2s/{call}", segment.choose_jitsu, "Messages of Jitsu's server SDKs.", CALLS),
    ForeignRoute(
        "cloudevents",
        POST,
        "/api/v1/events",
        cloudevents.choose,
        "CloudEvents 1.0 in JSON: structured, batched or binary. OpenMeter's SDKs send here, too.",
        success=204,
    ),
    ForeignRoute(
        "posthogBatch", POST, "/batch", amplitude.choose_batch, "Batches of PostHog's server SDKs and of Amplitude's SDKs."
    ),
    ForeignRoute("posthogE", POST, "/e", posthog.choose, "Events of PostHog's browser SDK."),
    ForeignRoute("posthogCapture", POST, "/capture", posthog.choose, "Events of PostHog's older SDKs."),
    ForeignRoute("posthogEvents", POST, "/i/v0/e", posthog.choose, "Events of PostHog's SDKs that use the newer path."),
    ForeignRoute("amplitude", POST, "/2/httpapi", amplitude.choose, "Events of Amplitude's SDKs."),
    ForeignRoute(
        "mixpanelTrack", BOTH, "/track", lambda _: mixpanel.EVENTS, "Events of Mixpanel's SDKs.", media_types=TEXT_OR_JSON
    ),
    ForeignRoute(
        "mixpanelEngage",
        BOTH,
        "/engage",
        lambda _: mixpanel.PROFILES,
        "User profiles of Mixpanel's SDKs.",
        media_types=TEXT_OR_JSON,
    ),
    ForeignRoute(
        "mixpanelGroups",
        BOTH,
        "/groups",
        lambda _: mixpanel.PROFILES,
        "Group profiles of Mixpanel's SDKs.",
        media_types=TEXT_OR_JSON,
    ),
    ForeignRoute(
        "mixpanelImport",
        POST,
        "/import",
        lambda _: mixpanel.IMPORT,
        "Past events, as imported into Mixpanel.",
        media_types=TEXT_OR_JSON,
    ),
    ForeignRoute("snowplow", POST, TP2, lambda _: snowplow.BATCH, "Events of Snowplow's trackers.", media_types=TEXT),
    ForeignRoute(
        "snowplowKey",
        POST,
        "/{key}" + TP2,
        lambda _: snowplow.BATCH,
        "Events of Snowplow's trackers, with a key in the path.",
        KEY,
        media_types=TEXT,
    ),
    ForeignRoute("snowplowPixel", GET, "/i", lambda _: snowplow.PIXELS, "An event of Snowplow's trackers.", media_types=GIF),
    ForeignRoute(
        "snowplowPixelKey",
        GET,
        "/{key}/i",
        lambda _: snowplow.PIXELS,
        "An event of Snowplow's trackers, with a key in the path.",
        KEY,
        media_types=GIF,
    ),
]
