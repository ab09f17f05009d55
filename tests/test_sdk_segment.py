"""Segment's and RudderStack's own SDKs: every message that they send is in the tables once, whatever happens to the server."""

from collections.abc import Callable

import pytest

from tests.sdks import Sdk, Stack, expected

SEGMENT_PYTHON = """
import os, time
from datetime import datetime, timezone
from segment.analytics.client import Client

client = Client(os.environ["KEY"], host=os.environ["HOST"], upload_size=5, upload_interval=0.1, max_retries=20, timeout=3)
happened = datetime(2026, 1, 1, 10, tzinfo=timezone.utc)
for number in range(int(os.environ["COUNT"])):
    client.track(f"u{number}", "Order Placed", {"total": number}, message_id=f"m{number}", timestamp=happened)
    time.sleep(float(os.environ["PAUSE"]))
client.shutdown()
"""
Send = Callable[..., Sdk]
SDKS: dict[str, Send] = {
    "Segment, Python": lambda stack, count, **more: stack.python(SEGMENT_PYTHON, count, **more),
}
each_sdk = pytest.mark.parametrize("send", SDKS.values(), ids=SDKS)


@each_sdk
def test_each_message_is_in_the_tables_once_however_often_it_is_sent(stack: Stack, send: Send) -> None:
    for _ in range(2):
        send(stack, 20).end()

    assert stack.ids() == expected("m", count=20)
    assert stack.records() == 20


@each_sdk
def test_a_server_that_dies_meanwhile_costs_nothing(stack: Stack, send: Send) -> None:
    sdk = send(stack, 200, PAUSE=0.01)
    stack.interrupt()
    sdk.end()

    assert stack.ids() == expected("m", count=200)
