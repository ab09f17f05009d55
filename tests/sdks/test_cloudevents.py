"""SDKs of CloudEvents and OpenMeter: each event is in the tables once.

The server fails meanwhile; every mode is used.
"""

import pytest

from tests.support.sdks import Stack, expected

# CloudEvents' SDK makes requests but does not send them; its users do, and send again after failures.
SEND = """
import os, time, httpx

def sent(headers, body):
    headers = dict(headers) | {"Authorization": "Bearer " + os.environ["KEY"]}
    for _ in range(40):
        answer = httpx.post(os.environ["HOST"] + "/api/v1/events", headers=headers, content=body)
        if answer.status_code == 204 and not answer.content:
            break
        assert answer.status_code in (429, 503), answer.text
        time.sleep(0.2)
    else:
        raise SystemExit(answer.text)
    time.sleep(float(os.environ["PAUSE"]))

numbers = range(int(os.environ["COUNT"]))
"""
EVENTS = (
    SEND
    + """
from cloudevents.conversion import to_json
from cloudevents.http import CloudEvent, to_binary, to_structured

events = [
    CloudEvent({"type": "order.placed", "source": "/shop", "id": f"m{number}", "subject": f"u{number}", "time": "2026-01-01T10:00:00Z",
                "datacontenttype": "application/json"}, {"total": number})
    for number in numbers
]
"""
)
MODES = {
    "structured": EVENTS + "for event in events: sent(*to_structured(event))",
    "binary": EVENTS + "for event in events: sent(*to_binary(event))",
    "batched": EVENTS
    + """
for first in range(0, len(events), 5):
    batch = b",".join(to_json(event) for event in events[first : first + 5])
    sent({"Content-Type": "application/cloudevents-batch+json"}, b"[" + batch + b"]")
""",
}
OPENMETER = """
import os, time
from datetime import datetime, timezone
from openmeter import Client
from openmeter.models import Event

client = Client(endpoint=os.environ["HOST"], token=os.environ["KEY"], retry_status=20, retry_total=20, retry_backoff_factor=0.1)
for number in range(int(os.environ["COUNT"])):
    event = Event(id=f"m{number}", source="/shop", type="order.placed", subject=f"u{number}", specversion="1.0",
                  time=datetime(2026, 1, 1, 10, tzinfo=timezone.utc), data={"total": number})
    client.events.ingest_event(event)
    time.sleep(float(os.environ["PAUSE"]))
"""
each_mode = pytest.mark.parametrize("script", [*MODES.values(), OPENMETER], ids=[*MODES, "OpenMeter"])


@each_mode
def test_each_event_is_in_the_tables_once_however_often_it_is_sent(stack: Stack, script: str) -> None:
    for _ in range(2):
        stack.python(script, 20).end()

    assert stack.ids() == expected("/shop m", count=20)
    assert stack.records() == 20
    seventh = stack.events()[7]
    assert (seventh["event_type"], seventh["session_id"], seventh["event_id"]) == ("order.placed", "u7", "/shop m7")
    assert seventh["properties"]["data"] == {"total": 7}


def test_an_event_is_the_same_in_every_mode(stack: Stack) -> None:
    for script in MODES.values():
        stack.python(script, 5).end()

    assert stack.ids() == expected("/shop m", count=5)
    assert stack.rows("quarantine") == []


@pytest.mark.parametrize("script", [MODES["batched"], OPENMETER], ids=["batched", "OpenMeter"])
def test_a_server_that_dies_meanwhile_loses_nothing(stack: Stack, script: str) -> None:
    sdk = stack.python(script, 100, PAUSE=0.05)
    stack.interrupt()
    sdk.end()

    assert stack.ids() == expected("/shop m", count=100)
