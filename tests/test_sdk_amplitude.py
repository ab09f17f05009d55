"""Amplitude's own SDK: every event that it sends is in the tables once, whatever happens to the server, and it stops when it must."""

import json
from collections import Counter

from tests.sdks import Stack

PREAMBLE = """
import os, time
from amplitude import Amplitude, BaseEvent, EventOptions, Identify

told = []
client = Amplitude(os.environ["KEY"])
client.configuration.server_url = os.environ["HOST"] + os.environ["ROUTE"]
client.configuration.flush_queue_size = 5
client.configuration.flush_interval_millis = 100
client.configuration.callback = lambda event, code, message: told.append(code)

def end(count, seconds=20):
    client.flush()
    deadline = time.monotonic() + seconds
    while len(told) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    client.shutdown()
    print(*told)
"""
SCRIPT = (
    PREAMBLE
    + """
for number in range(int(os.environ["COUNT"])):
    client.track(BaseEvent("Order Placed", user_id=f"user{number}", device_id=f"device{number}", insert_id=f"i{number:03}",
                           time=1767261600123, event_properties={"total": number}))
    time.sleep(float(os.environ["PAUSE"]))
end(int(os.environ["COUNT"]))
"""
)
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


def ids(count: int) -> Counter[str]:
    """Each pair of ids of a run exactly once."""
    return Counter(f"4:i{number:03}:device{number}" for number in range(count))


def test_each_event_is_in_the_tables_once_however_often_it_is_sent(stack: Stack) -> None:
    said = [stack.python(SCRIPT, 20, ROUTE=route).end().split() for route in ("/2/httpapi", "/batch")]

    assert said == [["200"] * 20] * 2
    assert stack.ids() == ids(20)
    assert stack.records() == 20


def test_a_server_that_dies_meanwhile_costs_nothing(stack: Stack) -> None:
    sdk = stack.python(SCRIPT, 200, PAUSE=0.01, ROUTE="/2/httpapi")
    stack.interrupt()
    said = sdk.end().split()

    assert said == ["200"] * 200
    assert stack.ids() == ids(200)


def test_a_wrong_key_ends_the_resends_and_with_the_right_one_each_call_is_an_event(stack: Stack) -> None:
    refused = stack.python(EACH_CALL, 0, ROUTE="/2/httpapi", KEY="ps_w_nobody", SECONDS=1).end()  # time for five resends
    said = stack.python(EACH_CALL, 0, ROUTE="/2/httpapi", SECONDS=20).end()

    found = {row["event_type"]: row for row in stack.rows()}
    identified = json.loads(found["$identify"]["properties"])
    assert refused.split("\n") == ["Invalid API Key", "", ""]
    assert said.split() == ["200"] * 3
    assert set(found) == {"Order Placed", "$identify", "$groupidentify"}
    assert found["Order Placed"]["session_id"] == "1767261600000"
    assert (identified["user_id"], identified["anonymous_id"]) == ("user1", "device1")
    assert identified["user_properties"] == {"$set": {"name": "Ada"}}
