"""Snowplow's own trackers: every event that they send is in the tables once, whatever happens to the server."""

import pytest

from tests.sdks import Stack, expected

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
    assert {(told["user_id"], told["anonymous_id"]) for told in (row["properties"] for row in stack.events())} == {("u1", "d1")}


@each_method
def test_a_server_that_dies_meanwhile_costs_nothing(stack: Stack, method: str) -> None:
    sdk = stack.python(PYTHON, 200, PAUSE=0.01, METHOD=method)
    stack.interrupt()
    sdk.end()

    assert stack.ids() == expected("m", count=200)
    assert stack.rows("quarantine") == []  # what was sent again says another time of sending
