"""Mixpanel's own SDKs: each event and profile is in the tables once.

The server fails meanwhile. The SDKs send again over TLS only, so a proxy in front of the API speaks TLS, as in production.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.sdks import Sdk, Stack, expected
from tests.support.tls import encrypted

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
NODE = """
import Mixpanel from "mixpanel";
import { promisify } from "node:util";

const { HOST, KEY, COUNT, PAUSE } = process.env;
const { hostname, port } = new URL(HOST);
const mixpanel = Mixpanel.init(KEY, { host: hostname, port, protocol: "http" });

async function surely(send) {
  for (let tries = 0; tries < 200; tries++) {
    if (!(await new Promise(send))) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error("in vain");
}

for (let number = 0; number < COUNT; number++) {
  const properties = () => ({ distinct_id: "ünï", $insert_id: `m${number}`, time: 1767261600 + number, note: ">>>???~~~" });
  await surely((done) => mixpanel.track("Order Placed", properties(), done));
  await new Promise((resolve) => setTimeout(resolve, PAUSE * 1000));
}
const batch = [0, 1].map((number) => ({ event: "Batched", properties: { $insert_id: `b${number}`, time: 1767261600 } }));
await surely((done) => mixpanel.track_batch(batch, (errors) => done(errors && errors.filter(Boolean)[0])));
await surely((done) => mixpanel.people.set("u1", { plan: "pro" }, { $time: 1767261600 }, done));
await surely((done) => mixpanel.groups.set("company", "c1", { plan: "pro" }, { $time: 1767261600 }, done));
await surely((done) => mixpanel.alias("d1", "u1", done));
"""


def node(stack: Stack, count: int, **more: Any) -> Sdk:
    """Start the Node script, which sends again itself: the SDK does not."""
    return stack.node(NODE, count, "mixpanel@^0.24", **more)


@pytest.fixture
def secured(stack: Stack) -> Iterator[dict[str, str]]:
    """The address of the TLS proxy, for scripts."""
    with encrypted(stack.api.port, stack.folder) as (host, certificate):
        yield {"TLS": host, "TRUSTED": str(certificate)}


def test_each_event_is_in_the_tables_once_however_often_it_is_sent(stack: Stack, secured: dict[str, str]) -> None:
    for _ in range(2):
        stack.python(PYTHON, 20, **secured).end()

    assert stack.ids() == expected("m", count=20)
    assert stack.records() == 20
    assert [row["timestamp"] for row in stack.rows()][:2] == ["2026-01-01T10:00:00Z", "2026-01-01T10:00:00.250000Z"]


def test_a_server_that_dies_meanwhile_loses_nothing(stack: Stack, secured: dict[str, str]) -> None:
    sdk = stack.python(PYTHON, 200, PAUSE=0.01, **secured)
    stack.interrupt()
    sdk.end()

    assert stack.ids() == expected("m", count=200)


def test_profiles_imports_and_links_arrive_too(stack: Stack, secured: dict[str, str]) -> None:
    for _ in range(2):
        stack.python(PYTHON_OTHERS, 1, **secured).end()

    rows = stack.rows()
    kinds = Counter(row["event_type"] for row in rows)
    assert kinds == {"$set": 2, "$add": 1, "Imported": 1, "$merge": 1, "$create_alias": 1}
    properties = {row["event_type"]: row["properties"] for row in stack.events()}
    assert (properties["$merge"]["user_id"], properties["$merge"]["previous_id"]) == ("u1", "u2")
    assert (properties["$create_alias"]["user_id"], properties["$create_alias"]["previous_id"]) == ("u1", "d1")
    assert properties["Imported"]["user_id"] == "u1"


def test_the_node_sdk_sends_everything_once(stack: Stack) -> None:
    for _ in range(2):
        node(stack, 20).end()

    ids, rows = stack.ids(), stack.events()
    others = [row["event_type"] for row in rows if not row["event_id"].startswith(("m", "b"))]
    assert stack.records() == len(rows) == 25
    assert expected("m", count=20) + expected("b", count=2) <= ids
    assert others == ["$set", "$set", "$create_alias"]
    assert rows[0]["properties"]["user_id"] == "ünï" and rows[0]["properties"]["properties"]["note"] == ">>>???~~~"


def test_the_node_sdk_sends_again_when_a_server_dies(stack: Stack) -> None:
    sdk = node(stack, 200, PAUSE=0.01)
    stack.interrupt()
    sdk.end()

    assert expected("m", count=200) <= stack.ids()
    assert stack.records() == 205
