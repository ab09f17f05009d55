"""Segment's SDK in a real browser, on a page of another origin."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.support.http import free_port, wait_until
from tests.support.sdks import Stack, need, node_packages, standing

PAGE = """<!doctype html><title>shop</title>
<script src="/sdk/index.js"></script>
<script>
const analytics = AnalyticsNext.AnalyticsBrowser.load({ writeKey: "%(key)s", cdnSettings: {
  integrations: { "Segment.io": { apiKey: "%(key)s", apiHost: "%(host)s/v1", protocol: "http"%(more)s } } } });
</script>
"""
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip
DELIVERIES = {
    "each by itself": "",
    "in batches": ', deliveryStrategy: { strategy: "batching", config: { size: 5, timeout: 100 } }',
}
SEND = """async ([first, count]) => {
  for (let number = first; number < first + count; number++) {
    await analytics.track("Order Placed", { total: number }, { messageId: `m${number}`, timestamp: new Date("2026-01-01T10:00:00Z") });
  }
}"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None: ...


@contextmanager
def served(folder: Path, port: int) -> Iterator[str]:
    """A web server for a folder: another origin than the API."""
    server = ThreadingHTTPServer(("127.0.0.1", port), partial(Quiet, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://localhost:{port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def shop(folder: Path, delivery: str) -> Iterator[tuple[Stack, Page]]:
    """A stack, and a browser page of another origin whose SDK sends to it."""
    chromium = need("chromium")
    port = free_port()
    site = folder / "site"
    site.mkdir()
    (site / "sdk").symlink_to(node_packages("@segment/analytics-next@^1") / "node_modules/@segment/analytics-next/dist/umd")
    with standing(folder, CORS_ORIGINS=f"http://localhost:{port}") as stack, served(site, port) as origin:
        host = stack.api.url.removeprefix("http://")
        (site / "index.html").write_text(PAGE % {"key": stack.key, "host": host, "more": DELIVERIES[delivery]})
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch_persistent_context(
                str(folder / "profile"), executable_path=chromium, headless=True, args=FLAGS
            )
            page = browser.new_page()
            page.goto(origin)
            yield stack, page
            browser.close()


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_each_message_of_a_page_is_in_the_tables_once(tmp_path: Path, delivery: str) -> None:
    with shop(tmp_path, delivery) as (stack, page):
        for _ in range(2):
            page.evaluate(SEND, [0, 10])
        page.evaluate("analytics.identify('u1', { plan: 'pro' })")
        wait_until(lambda: len(stack.events()) == 11, "everything that the page sent is in the tables")

        ids = stack.ids()
        [identified] = [row for row in stack.events() if row["event_type"] == "identify"]
        assert ids == {f"m{number}": 1 for number in range(10)} | {identified["event_id"]: 1}
        assert identified["properties"]["user_id"] == "u1"
        assert identified["properties"]["traits"] == {"plan": "pro"}
        assert identified["properties"]["anonymous_id"] == stack.events()[0]["properties"]["anonymous_id"]


def test_a_page_sends_again_what_a_dead_server_did_not_accept(tmp_path: Path) -> None:
    with shop(tmp_path, "each by itself") as (stack, page):
        page.evaluate(SEND, [0, 3])
        wait_until(lambda: len(stack.events()) == 3, "the first messages are in the tables")
        stack.server.kill()
        page.evaluate(f"numbers => {{ ({SEND})(numbers) }}", [3, 3])
        wait_until(lambda: any(line.get("status") == 503 for line in stack.api.logged), "the page was refused")
        stack.server.start()
        wait_until(lambda: len(stack.events()) == 6, "the page sent again", seconds=30)

        assert stack.ids() == {f"m{number}": 1 for number in range(6)}
