"""Mixpanel's own SDKs: every event and profile that they send is in the tables once, whatever happens to the server.

They send again over TLS only, so a proxy speaks it in front of the API, as one would where it is used.
"""

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.sdks import Sdk, Stack, expected
from tests.tls import encrypted

PYTHON = """
import os, time
from mixpanel import BufferedConsumer, Mixpanel

consumer = BufferedConsumer(max_size=5, api_host=os.environ["TLS"], verify_cert=os.environ["TRUSTED"], retry_limit=15)
mixpanel = Mixpanel(os.environ["KEY"], consumer)
for number in range(int(os.environ["COUNT"])):
    mixpanel.track(f"u{number}", "Order Placed", {"$insert_id": f"m{number}", "total": number, "time": 1767261600 + number / 4})
    time.sleep(float(os.environ["PAUSE"]))
consumer.flush()
"""
PYTHON_OTHERS = """
import os
from mixpanel import Consumer, Mixpanel

consumer = Consumer(api_host=os.environ["TLS"], verify_cert=os.environ["TRUSTED"])
mixpanel = Mixpanel(os.environ["KEY"], consumer)
mixpanel.people_set("u1", {"plan": "pro"}, meta={"$time": 1767261600})
mixpanel.people_increment("u1", {"logins": 1}, meta={"$time": 1767261600})
mixpanel.group_set("company", "c1", {"plan": "pro"}, meta={"$time": 1767261600})
mixpanel.import_data(None, "u1", "Imported", 1767261600, {"$insert_id": "imported"}, api_secret=os.environ["KEY"])
mixpanel.merge(None, "u1", "u2", api_secret=os.environ["KEY"])
consumer.send("events", '{"event":"$create_alias","properties":{"distinct_id":"d1","alias":"u1","token":"%s"}}' % os.environ["KEY"])
"""
Send = Callable[..., Sdk]


@pytest.fixture
def secured(stack: Stack) -> Iterator[dict[str, str]]:
    """Where TLS is spoken, for scripts."""
    with encrypted(stack.api.port, stack.folder) as (host, certificate):
        yield {"TLS": host, "TRUSTED": str(certificate)}


def test_each_event_is_in_the_tables_once_however_often_it_is_sent(stack: Stack, secured: dict[str, str]) -> None:
    for _ in range(2):
        stack.python(PYTHON, 20, **secured).end()

    assert stack.ids() == expected("m", count=20)
    assert stack.records() == 20
    assert [row["timestamp"] for row in stack.rows()][:2] == ["2026-01-01T10:00:00Z", "2026-01-01T10:00:00.250000Z"]


def test_a_server_that_dies_meanwhile_costs_nothing(stack: Stack, secured: dict[str, str]) -> None:
    sdk = stack.python(PYTHON, 200, PAUSE=0.01, **secured)
    stack.interrupt()
    sdk.end()

    assert stack.ids() == expected("m", count=200)


def test_profiles_imports_and_links_come_too(stack: Stack, secured: dict[str, str]) -> None:
    for _ in range(2):
        stack.python(PYTHON_OTHERS, 1, **secured).end()

    rows = stack.rows()
    kinds = Counter(row["event_type"] for row in rows)
    assert kinds == {"$set": 2, "$add": 1, "Imported": 1, "$merge": 1, "$create_alias": 1}
    told = {row["event_type"]: row["properties"] for row in stack.events()}
    assert (told["$merge"]["user_id"], told["$merge"]["previous_id"]) == ("u1", "u2")
    assert (told["$create_alias"]["user_id"], told["$create_alias"]["previous_id"]) == ("u1", "d1")
    assert told["Imported"]["user_id"] == "u1"
