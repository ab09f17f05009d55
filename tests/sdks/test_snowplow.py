"""Snowplow's own trackers: each event is in the tables exactly once.

The server fails meanwhile.
"""

import pytest

from tests.support.sdks import Stack, expected

PYTHON = """
import itertools, os, time
from snowplow_tracker import AsyncEmitter, SelfDescribing, SelfDescribingJson, Subject, Tracker

names = (f"m{number}" for number in itertools.count())
Tracker.get_uuid = staticmethod(lambda: next(names))
emitter = AsyncEmitter(
    os.environ["HOST"] + "/" + os.environ["KEY"], method=os.environ["METHOD"], request_timeout=5, max_retry_delay_seconds=1
)
subject = Subject().set_user_id("u1").set_domain_user_id("d1").set_domain_session_id("s1").set_domain_session_index(3)
tracker = Tracker(namespace="shop", emitters=emitter, subject=subject, app_id="shop")
for number in range(int(os.environ["COUNT"])):
    viewed = SelfDescribingJson("iglu:com.acme/product_viewed/jsonschema/1-0-0", {"price": number})
    happened = 1767261600000 + number if "KNOWN" in os.environ else None
    tracker.track(SelfDescribing(viewed, true_timestamp=happened))
    time.sleep(float(os.environ["PAUSE"]))
deadline = time.monotonic() + 20
while emitter.event_store.size() or emitter.queue.unfinished_tasks or emitter.retry_timer.is_active():
    assert time.monotonic() < deadline
    emitter.flush()
    time.sleep(0.05)
"""
NODE = """
import { buildSelfDescribingEvent, newTracker } from "@snowplow/node-tracker";

const { HOST, KEY, COUNT, PAUSE } = process.env;
const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
let arrived = 0;
const tracker = newTracker(
  { namespace: "shop", appId: "shop" },
  { endpoint: `${HOST}/${KEY}`, bufferSize: 5, onRequestSuccess: (batch) => (arrived += batch.length) },
);
tracker.setUserId("u1");
tracker.setSessionId("s1");
tracker.setSessionIndex(3);
for (let number = 0; number < COUNT; number++) {
  const event = { schema: "iglu:com.acme/product_viewed/jsonschema/1-0-0", data: { note: "ünï>>>???" } };
  tracker.track(buildSelfDescribingEvent({ event }), [], { type: "ttm", value: 1767261600000 + number });
  await wait(PAUSE * 1000);
}
while (arrived < COUNT) {
  await tracker.flush();
  await wait(50);
}
"""
each_method = pytest.mark.parametrize("method", ["post", "get"])


@each_method
def test_each_event_is_in_the_tables_once_however_often_it_is_sent(stack: Stack, method: str) -> None:
    for _ in range(2):
        stack.python(PYTHON, 20, METHOD=method, KNOWN=1).end()

    rows = stack.rows()
    assert stack.ids() == expected("m", count=20)
    assert stack.records() == 20
    assert {(row["event_type"], row["session_id"]) for row in rows} == {("product_viewed", "s1")}
    assert {row["timestamp"] for row in rows} >= {"2026-01-01T10:00:00Z", "2026-01-01T10:00:00.001000Z"}
    assert {
        (properties["user_id"], properties["anonymous_id"]) for properties in (row["properties"] for row in stack.events())
    } == {("u1", "d1")}


@each_method
def test_a_server_that_dies_meanwhile_loses_nothing(stack: Stack, method: str) -> None:
    sdk = stack.python(PYTHON, 200, PAUSE=0.01, METHOD=method)
    stack.interrupt()
    sdk.end()

    assert stack.ids() == expected("m", count=200)
    assert stack.rows("quarantine") == []  # a resend has another time of sending


def test_the_node_tracker_loses_nothing_when_a_server_dies(stack: Stack) -> None:
    sdk = stack.node(NODE, 200, "@snowplow/node-tracker@^4.8", PAUSE=0.01)
    stack.interrupt()
    sdk.end()

    assert stack.records() == len(stack.ids()) == 200
    rows = stack.events()
    assert len({row["timestamp"] for row in rows}) == 200
    assert {(row["event_type"], row["session_id"], row["properties"]["user_id"]) for row in rows} == {
        ("product_viewed", "s1", "u1")
    }
    assert rows[0]["properties"]["unstruct_event"]["data"] == {"note": "ünï>>>???"}
