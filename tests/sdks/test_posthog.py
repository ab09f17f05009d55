"""PostHog's own SDKs: each event is in the tables exactly once.

The server fails meanwhile.
"""

import json
from collections import Counter
from typing import Any

import pytest

from tests.support.sdks import Sdk, Stack

PYTHON = """
import os, time
from datetime import datetime, timezone
from posthog import Posthog

posthog = Posthog(os.environ["KEY"], host=os.environ["HOST"], flush_at=5, flush_interval=0.1, max_retries=8, gzip=bool(os.environ.get("GZIP")))
happened = datetime(2026, 1, 1, 10, tzinfo=timezone.utc)
for number in range(int(os.environ["COUNT"])):
    posthog.capture("order placed", distinct_id=f"u{number}", properties={"total": number}, timestamp=happened,
                    uuid=f"00000000-0000-4000-8000-{number:012}")
    time.sleep(float(os.environ["PAUSE"]))
posthog.shutdown()
"""
NODE = """
import { PostHog } from "posthog-node";

const { KEY, HOST, COUNT, PAUSE } = process.env;
const disableCompression = !process.env.GZIP;
const options = { host: HOST, flushAt: 5, flushInterval: 100, fetchRetryCount: 20, fetchRetryDelay: 300, disableCompression };
const posthog = new PostHog(KEY, options);
for (let number = 0; number < Number(COUNT); number++) {
  posthog.capture({
    event: "order placed", distinctId: `u${number}`, properties: { total: number }, timestamp: new Date("2026-01-01T10:00:00Z"),
    uuid: `00000000-0000-4000-8000-${String(number).padStart(12, "0")}`,
  });
  await new Promise((resolve) => setTimeout(resolve, Number(PAUSE) * 1000));
}
await posthog.shutdown();
"""


def send(stack: Stack, sdk: str, count: int, **more: Any) -> Sdk:
    """Start an SDK that captures events."""
    return stack.python(PYTHON, count, **more) if sdk == "Python" else stack.node(NODE, count, "posthog-node@^5", **more)


each_sdk = pytest.mark.parametrize("sdk", ["Python", "Node"])
EACH_CALL = """
import os
from posthog import Posthog

posthog = Posthog(os.environ["KEY"], host=os.environ["HOST"], debug=True, on_error=lambda error, batch: print("FAILED", error))
posthog.capture("order placed", distinct_id="u1", properties={"total": 1, "$session_id": "s1"})
posthog.capture("page seen")
posthog.set(distinct_id="u1", properties={"name": "Ada"})
posthog.alias("d1", "u1")
posthog.group_identify("company", "c1", {"name": "Analytical"})
posthog.capture_exception(ValueError("what went wrong"), distinct_id="u1")
posthog.shutdown()
"""


def ids(count: int) -> Counter[str]:
    """Each id of a run, exactly once."""
    return Counter(f"00000000-0000-4000-8000-{number:012}" for number in range(count))


@each_sdk
def test_each_event_is_in_the_tables_once_however_often_it_is_sent(stack: Stack, sdk: str) -> None:
    send(stack, sdk, 20).end()
    send(stack, sdk, 20, GZIP=1).end()

    assert stack.ids() == ids(20)
    assert stack.records() == 20


@each_sdk
def test_a_server_that_dies_meanwhile_loses_nothing(stack: Stack, sdk: str) -> None:
    process = send(stack, sdk, 200, PAUSE=0.01)
    stack.interrupt()
    process.end()

    assert stack.ids() == ids(200)


def test_a_wrong_key_is_reported_and_with_the_right_key_each_call_is_an_event(stack: Stack) -> None:
    refused = stack.python(EACH_CALL, 0, KEY="ps_w_nobody").end()
    output = stack.python(EACH_CALL, 0).end()

    ordered, dedup_keys, person, alias, group, exception = stack.rows()
    actors = [json.loads(row["properties"]) for row in (ordered, dedup_keys, person, alias)]
    assert "this key is unknown or was revoked" in refused
    assert "FAILED" not in output
    assert [row["event_type"] for row in (ordered, dedup_keys, person)] == ["order placed", "page seen", "$set"]
    assert [row["event_type"] for row in (alias, group, exception)] == ["$create_alias", "$groupidentify", "$exception"]
    assert (ordered["session_id"], actors[0]["properties"]["total"]) == ("s1", 1)
    assert [actor.get("user_id") for actor in actors] == ["u1", None, "u1", "d1"]
    assert actors[1]["anonymous_id"]
    assert actors[3]["previous_id"] == "u1"
    assert stack.rows("quarantine") == []
