"""SDKs of Segment and RudderStack: each message is in the tables once.

The server fails meanwhile.
"""

import pytest

from tests.support.sdks import Sdk, Stack, expected

SEGMENT_PYTHON = """
import os, time
from datetime import datetime, timezone
import segment.analytics as analytics

analytics.host = os.environ["HOST"]
analytics.write_key = os.environ["KEY"]
analytics.max_retries = 20
happened = datetime(2026, 1, 1, 10, tzinfo=timezone.utc)
for number in range(int(os.environ["COUNT"])):
    analytics.track(f"u{number}", "Order Placed", {"total": number}, message_id=f"m{number}", timestamp=happened)
    time.sleep(float(os.environ["PAUSE"]))
analytics.identify("u0", {"plan": "pro"}, message_id="identify", timestamp=happened)
analytics.alias("old", "u0", message_id="alias", timestamp=happened)
analytics.shutdown()
"""
RUDDER_PYTHON = (
    SEGMENT_PYTHON.replace("segment.analytics", "rudderstack.analytics")
    .replace("analytics.host", "analytics.dataPlaneUrl")
    .replace("analytics.max_retries = 20", "analytics.max_retries = 20\nanalytics.gzip = True")
)
SEGMENT_NODE = """
import { Analytics } from "@segment/analytics-node";

const { HOST, KEY, COUNT, PAUSE } = process.env;
const analytics = new Analytics({ writeKey: KEY, host: HOST, maxRetries: 10, maxEventsInBatch: 20, flushInterval: 200 });
const timestamp = new Date("2026-01-01T10:00:00Z");
for (let number = 0; number < COUNT; number++) {
  analytics.track({ userId: `u${number}`, event: "Order Placed", properties: { total: number }, messageId: `m${number}`, timestamp });
  await new Promise((done) => setTimeout(done, PAUSE * 1000));
}
analytics.identify({ userId: "u0", traits: { plan: "pro" }, messageId: "identify", timestamp });
analytics.alias({ userId: "u0", previousId: "old", messageId: "alias", timestamp });
await analytics.closeAndFlush();
"""
RUDDER_NODE = (
    SEGMENT_NODE.replace('{ Analytics } from "@segment/analytics-node"', 'RudderAnalytics from "@rudderstack/rudder-sdk-node"')
    .replace("Analytics({ writeKey: KEY, host: HOST, maxRetries: 10, maxEventsInBatch: 20,", "RudderAnalytics(KEY, { dataPlaneUrl: HOST, retryCount: 10, flushAt: 20,")
    .replace("await analytics.closeAndFlush()", "await new Promise((done) => analytics.flush(done))")
)  # fmt: skip
NODE_PACKAGES = ("@segment/analytics-node@^3", "@rudderstack/rudder-sdk-node@^3")


def send(stack: Stack, sdk: str, count: int, **more: float) -> Sdk:
    """Start an SDK that tracks messages, identifies a user and renames it."""
    scripts = {"Segment": (SEGMENT_PYTHON, SEGMENT_NODE), "RudderStack": (RUDDER_PYTHON, RUDDER_NODE)}
    python, node = scripts[sdk.split(",")[0]]
    return stack.python(python, count, **more) if "Python" in sdk else stack.node(node, count, *NODE_PACKAGES, **more)


each_sdk = pytest.mark.parametrize("sdk", ["Segment, Python", "RudderStack, Python", "Segment, Node", "RudderStack, Node"])


@each_sdk
def test_each_message_is_in_the_tables_once_however_often_it_is_sent(stack: Stack, sdk: str) -> None:
    for _ in range(2):
        send(stack, sdk, 20).end()

    assert stack.ids() == expected("m", count=20) + expected("identify", "alias")
    assert stack.records() == 22
    rows = {row["event_id"]: (row["event_type"], row["timestamp"], row["properties"]) for row in stack.events()}
    assert rows["m7"][0] == "Order Placed"
    assert rows["m7"][1].startswith("2026-01-01T10:00:00")
    assert (rows["m7"][2]["user_id"], rows["m7"][2]["properties"]) == ("u7", {"total": 7})
    assert (rows["identify"][0], rows["identify"][2]["user_id"], rows["identify"][2]["traits"]) == (
        "identify",
        "u0",
        {"plan": "pro"},
    )
    assert (rows["alias"][0], rows["alias"][2]["user_id"], rows["alias"][2]["previous_id"]) == ("alias", "u0", "old")


@each_sdk
def test_a_server_that_dies_meanwhile_loses_nothing(stack: Stack, sdk: str) -> None:
    process = send(stack, sdk, 200, PAUSE=0.01)
    stack.interrupt()
    process.end()

    assert stack.ids() == expected("m", count=200) + expected("identify", "alias")
