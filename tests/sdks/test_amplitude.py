"""Amplitude's own SDK: each event is in the tables exactly once.

The server fails meanwhile, and a refused SDK stops.
"""

import json
from collections import Counter
from typing import Any

import pytest

from tests.support.sdks import Sdk, Stack

PREAMBLE = """
import os, time
from amplitude import Amplitude, BaseEvent, EventOptions, Identify

codes = []
client = Amplitude(os.environ["KEY"])
client.configuration.server_url = os.environ["HOST"] + os.environ["ROUTE"]
client.configuration.flush_queue_size = 5
client.configuration.flush_interval_millis = 100
client.configuration.callback = lambda event, code, message: codes.append(code)

def end(count, seconds=20):
    client.flush()
    deadline = time.monotonic() + seconds
    while len(codes) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    client.shutdown()
    print(*codes)
"""
PYTHON = (
    PREAMBLE
    + """
for number in range(int(os.environ["COUNT"])):
    client.track(BaseEvent("Order Placed", user_id=f"user{number}", device_id=f"device{number}", insert_id=f"i{number:03}",
                           time=1767261600123, event_properties={"total": number}))
    time.sleep(float(os.environ["PAUSE"]))
end(int(os.environ["COUNT"]))
"""
)
NODE = """
import * as amplitude from "@amplitude/analytics-node";

const { KEY, HOST, ROUTE, COUNT, PAUSE } = process.env;
const options = { serverUrl: HOST + ROUTE, flushQueueSize: 5, flushIntervalMillis: 100, flushMaxRetries: 12, logLevel: 0 };
await amplitude.init(KEY, options).promise;
const sent = [];
for (let number = 0; number < Number(COUNT); number++) {
  const who = { user_id: `user${number}`, device_id: `device${number}`, insert_id: `i${String(number).padStart(3, "0")}` };
  sent.push(amplitude.track("Order Placed", { total: number }, { ...who, time: 1767261600123 }).promise);
  await new Promise((resolve) => setTimeout(resolve, Number(PAUSE) * 1000));
}
amplitude.flush();
console.log((await Promise.all(sent)).map((one) => one.code).join(" "));
"""
EACH_CALL = (
    PREAMBLE
    + """
who = EventOptions(user_id="user1", device_id="device1")
client.track(BaseEvent("Order Placed", user_id="user1", session_id=1767261600000))
name = Identify()
name.set("name", "Ada")
client.identify(name, who)
client.group_identify("company", "c1", name, who)
end(3, float(os.environ["SECONDS"]))
"""
)


each_sdk = pytest.mark.parametrize("sdk", ["Python", "Node"])


def ids(count: int) -> Counter[str]:
    """Each pair of ids of a run, exactly once."""
    return Counter(f"4:i{number:03}:device{number}" for number in range(count))


def send(stack: Stack, sdk: str, count: int, *, route: str = "/2/httpapi", **more: Any) -> Sdk:
    """Start an SDK that tracks events and prints the status of each."""
    more["ROUTE"] = route
    return (
        stack.python(PYTHON, count, **more)
        if sdk == "Python"
        else stack.node(NODE, count, "@amplitude/analytics-node@^1", **more)
    )


@each_sdk
def test_each_event_is_in_the_tables_once_however_often_it_is_sent(stack: Stack, sdk: str) -> None:
    output = [send(stack, sdk, 20, route=route).end().split() for route in ("/2/httpapi", "/batch")]

    assert output == [["200"] * 20] * 2
    assert stack.ids() == ids(20)
    assert stack.records() == 20


@each_sdk
def test_a_server_that_dies_meanwhile_loses_nothing(stack: Stack, sdk: str) -> None:
    process = send(stack, sdk, 200, PAUSE=0.01)
    stack.interrupt()

    assert process.end().split() == ["200"] * 200
    assert stack.ids() == ids(200)


def test_a_wrong_key_ends_the_resends_and_with_the_right_key_each_call_is_an_event(stack: Stack) -> None:
    refused = stack.python(EACH_CALL, 0, ROUTE="/2/httpapi", KEY="ps_w_nobody", SECONDS=1).end()  # long enough for five resends
    output = stack.python(EACH_CALL, 0, ROUTE="/2/httpapi", SECONDS=20).end()

    rows = {row["event_type"]: row for row in stack.rows()}
    identified = json.loads(rows["$identify"]["properties"])
    assert refused.split("\n") == ["Invalid API Key", "", ""]
    assert output.split() == ["200"] * 3
    assert set(rows) == {"Order Placed", "$identify", "$groupidentify"}
    assert rows["Order Placed"]["session_id"] == "1767261600000"
    assert (identified["user_id"], identified["anonymous_id"]) == ("user1", "device1")
    assert identified["user_properties"] == {"$set": {"name": "Ada"}}
