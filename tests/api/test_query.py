"""The query endpoints show a tenant all of its data and nothing else.

Events and sessions come in order, page by page; each event has an outcome.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from projector import Filters
from projector.store.sqlite import SqliteStore
from projector.store.sqlite.queries import events_query, sessions_query
from streams import event_identity, keys_of, make_event
from tests.support.clock import stopwatch
from tests.support.events import body, event, events
from tests.support.http import App, opened, wait_until
from tests.support.servers import Server

pytestmark = pytest.mark.anyio

MOST_PAGES = 50


@pytest.fixture
async def app(server: Server, tmp_path: Path) -> AsyncIterator[App]:
    async with opened(server, tmp_path, READ_WAIT_TIMEOUT_SECONDS=0.3) as app:
        yield app


async def sent(app: App, *members: dict[str, Any], tenant: str = "acme") -> None:
    """Send events and project them; their positions follow each other."""
    await app.log.append(tenant, [event(**one) for one in members])
    await app.project()


async def positions(app: App, **parameters: Any) -> list[int]:
    """The positions that GET /api/events shows, in its order."""
    answer = await app.get("/api/events", **parameters)
    assert answer.status_code == 200, answer.text
    return [row["position"] for row in answer.json()["events"]]


async def session_ids(app: App, **parameters: Any) -> list[str]:
    """The sessions that GET /api/sessions shows, in its order."""
    answer = await app.get("/api/sessions", **parameters)
    assert answer.status_code == 200, answer.text
    return [row["session_id"] for row in answer.json()["sessions"]]


async def walked(app: App, path: str, name: str, **parameters: Any) -> list[dict[str, Any]]:
    """All rows of a path, page after page."""
    rows: list[dict[str, Any]] = []
    cursor = None
    for _ in range(MOST_PAGES):
        page = (await app.get(path, **parameters, **({"cursor": cursor} if cursor else {}))).json()
        rows += page[name]
        cursor = page["next"]
        if cursor is None:
            return rows
    raise AssertionError(f"there is no end behind {MOST_PAGES} pages")


def moment(second: int) -> str:
    return f"2026-01-01T10:00:{second:02}Z"


MIXED = [
    {"session_id": "A", "event_type": "view", "timestamp": moment(5)},
    {"session_id": "A", "event_type": "click", "timestamp": moment(1)},
    {"session_id": "B", "event_type": "view", "timestamp": moment(9)},
    {"session_id": "B", "event_type": "view", "timestamp": moment(5)},
    {"session_id": "A", "event_type": "view", "timestamp": moment(5), "event_id": "same time, same session"},
]


# -- events and sessions -----------------------------------------------------------------------------------------------


async def test_events_come_newest_first_by_event_time_then_position(app: App) -> None:
    await sent(app, *MIXED)

    assert await positions(app) == [3, 5, 4, 1, 2]


async def test_equal_moments_in_different_offsets_are_equal(app: App) -> None:
    await sent(
        app,
        {"session_id": "A", "timestamp": "2026-01-01T10:00:00Z"},
        {"session_id": "B", "timestamp": "2026-01-01T12:00:00.000001+02:00"},
        {"session_id": "C", "timestamp": "2026-01-01T05:00:00-05:00"},
    )

    rows = (await app.get("/api/events")).json()["events"]

    assert [row["position"] for row in rows] == [2, 3, 1]
    assert rows[0]["timestamp"] == "2026-01-01T12:00:00.000001+02:00"
    assert [row["timestamp_utc"] for row in rows] == ["2026-01-01T10:00:00.000001Z", *["2026-01-01T10:00:00.000000Z"] * 2]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"session_id": "A"}, [5, 1, 2]),
        ({"session_id": "nobody"}, []),
        ({"event_type": "view"}, [3, 5, 4, 1]),
        ({"event_type": "click"}, [2]),
        ({"since": moment(5)}, [3, 5, 4, 1]),
        ({"until": moment(5)}, [2]),
        ({"since": moment(5), "until": moment(9)}, [5, 4, 1]),
        ({"since": "2026-01-01T12:00:09+02:00"}, [3]),
        ({"session_id": "B", "event_type": "view", "until": moment(9)}, [4]),
        ({"session_id": "A", "event_type": "view", "since": moment(2), "until": moment(6)}, [5, 1]),
        ({"since": moment(9), "until": moment(1)}, []),
    ],
    ids=str,
)
async def test_filters_choose_events_and_are_combined(app: App, parameters: dict[str, str], expected: list[int]) -> None:
    await sent(app, *MIXED)

    assert await positions(app, **parameters) == expected


async def test_a_session_has_its_first_and_last_event_by_event_time(app: App) -> None:
    await sent(app, *MIXED)

    first, second = (await app.get("/api/sessions")).json()["sessions"]

    assert (first["session_id"], second["session_id"]) == ("B", "A")
    assert {key: second[key] for key in second if key != "session_id"} == {
        "user_id": None,
        "anonymous_id": None,
        "started_at": "2026-01-01T10:00:01.000000Z",
        "last_event_at": "2026-01-01T10:00:05.000000Z",
        "event_count": 3,
        "first_event_type": "click",
        "last_event_type": "view",
    }


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"session_id": "A"}, ["A"]),
        ({"event_type": "view"}, ["B", "A"]),
        ({"event_type": "click"}, ["A"]),
        ({"since": moment(6)}, ["B"]),
        ({"until": moment(6)}, ["A"]),
        ({"event_type": "click", "since": moment(6)}, []),
    ],
    ids=str,
)
async def test_filters_choose_sessions_and_are_combined(app: App, parameters: dict[str, str], expected: list[str]) -> None:
    await sent(app, *MIXED)

    assert await session_ids(app, **parameters) == expected


async def test_a_sessions_page_holds_the_session_and_its_events_page_by_page(app: App) -> None:
    await sent(app, *MIXED)

    page = (await app.get("/api/sessions/A", limit=2)).json()
    rest = (await app.get("/api/sessions/A", limit=2, cursor=page["next"])).json()

    assert (page["session_id"], page["event_count"]) == ("A", 3)
    assert [row["position"] for row in page["events"] + rest["events"]] == [5, 1, 2]
    assert rest["next"] is None


@pytest.mark.parametrize("session_id", ["a/b", "a b", "?x=1", "..", "a%2Fb", "#", "ü❤", "+", "events"])
async def test_a_session_of_any_name_is_found(app: App, session_id: str) -> None:
    await sent(app, {"session_id": session_id})
    quoted = "".join(f"%{byte:02X}" for byte in session_id.encode())

    answer = await app.client.get(f"/api/sessions/{quoted}", headers={"X-Tenant-ID": "acme"})

    assert (answer.status_code, answer.json().get("session_id")) == (200, session_id)


async def test_an_unknown_session_is_answered_404(app: App) -> None:
    answer = await app.get("/api/sessions/nobody")

    assert (answer.status_code, answer.json()["code"]) == (404, "session-unknown")


# -- pages -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
async def test_pages_hold_every_event_once_when_all_have_the_same_time(app: App, limit: int) -> None:
    await sent(app, *({"session_id": f"S{i}"} for i in range(14)))

    rows = await walked(app, "/api/events", "events", limit=limit)
    sessions = await walked(app, "/api/sessions", "sessions", limit=limit)

    assert [row["position"] for row in rows] == list(range(14, 0, -1))
    assert [row["session_id"] for row in sessions] == [f"S{i}" for i in range(13, -1, -1)]


@pytest.mark.parametrize(
    "filters", [{}, {"session_id": "S1"}, {"event_type": "page_view"}, {"since": "2026-01-01T00:00:00Z"}], ids=str
)
async def test_pages_are_complete_and_without_repeats_while_events_arrive(app: App, filters: dict[str, str]) -> None:
    before = [{"session_id": f"S{i % 2}", "timestamp": moment(i // 4), "n": i, "event_id": f"{i}"} for i in range(30)]
    await sent(app, *before)
    shown: list[int] = []
    cursor: str | None = None
    for turn in range(MOST_PAGES):
        page = (await app.get("/api/events", limit=4, **filters, **({"cursor": cursor} if cursor else {}))).json()
        shown += [row["position"] for row in page["events"]]
        cursor = page["next"]
        if cursor is None:
            break
        times = [moment(59), page["events"][-1]["timestamp"]]  # newer than all, and exactly where the page ended
        await sent(app, *({"session_id": "S1", "timestamp": at, "event_id": f"{turn} {at}"} for at in times))

    expected = [
        position for position in range(1, 31) if "session_id" not in filters or before[position - 1]["session_id"] == "S1"
    ]
    assert cursor is None
    assert len(shown) == len(set(shown))
    assert sorted(position for position in shown if position <= 30) == expected


async def test_the_last_page_has_no_cursor(app: App) -> None:
    await sent(app, *({"session_id": f"S{i}"} for i in range(4)))

    answer = await app.get("/api/events", limit=4)

    assert (len(answer.json()["events"]), answer.json()["next"]) == (4, None)


async def test_a_page_has_100_rows_or_as_many_as_requested_up_to_1000(app: App) -> None:
    await app.log.append("acme", events(1_001))
    await app.project()

    assert [len(await positions(app)), len(await positions(app, limit=1_000))] == [100, 1_000]


# -- parameters --------------------------------------------------------------------------------------------------------

READS = ["/api/events", "/api/sessions", "/api/sessions/S1"]


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        *(("limit", value) for value in ("0", "1001", "-1", "1.5", "ten", "", "²", "1" * 5_000, "0" * 5_000)),
        *(("cursor", value) for value in ("", "x", "@@@", "é", "MTIz", "MS4yLjM", "YS5i", "LjE", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5Ljk5")),
        *(("after", value) for value in ("-1", "x", "", "1e3", str(2**53 + 1), "9" * 5_000, "0" * 21 + "9" * 30, "0" * 5_000)),
        ("unknown", "1"),
        ("Limit", "1"),
        ("tenant_id", "other"),
    ],
    ids=lambda value: value[:24],
)  # fmt: skip
async def test_a_wrong_or_unknown_parameter_is_answered_400_with_its_name(app: App, parameter: str, value: str) -> None:
    await sent(app, {})

    for path in READS:
        answer = await app.get(path, **{parameter: value})

        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (400, "invalid-parameter"), problem
        assert problem["parameter"] == parameter
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("parameter", ["since", "until"])
@pytest.mark.parametrize("value", ["", "now", "2026-01-01", "2026-01-01T10:00:00", "0001-01-01T00:00:00+23:59", "1"])
async def test_an_invalid_time_is_answered_400(app: App, parameter: str, value: str) -> None:
    answer = await app.get("/api/events", **{parameter: value})

    assert (answer.status_code, answer.json()["parameter"]) == (400, parameter)


async def test_a_repeated_parameter_is_answered_400(app: App) -> None:
    answer = await app.client.get("/api/events?session_id=A&session_id=B", headers={"X-Tenant-ID": "acme"})

    assert (answer.status_code, answer.json()["parameter"]) == (400, "session_id")


# -- reading own writes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/events", "/api/sessions", "/api/sessions/S1", "/api/receipts/1"])
async def test_a_read_after_a_position_waits_for_it(server: Server, tmp_path: Path, path: str) -> None:
    async with opened(server, tmp_path, READ_WAIT_TIMEOUT_SECONDS=10) as app:
        position = (await app.post(body())).json()["position"]

        reading = asyncio.create_task(app.get(path, after=position))
        await asyncio.wait([reading], timeout=0.1)
        waited = not reading.done()
        await app.project()
        answer = await reading

        assert waited
        assert answer.status_code == 200
        assert answer.json().get("status", "projected") == "projected"
        assert "S1" in answer.text or path.startswith("/api/receipts")


async def test_a_read_that_waits_too_long_is_answered_503_with_the_checkpoint(app: App) -> None:
    await sent(app, {})
    await app.post(body(session_id="not projected"))
    with stopwatch() as watch:
        answer = await app.get("/api/events", after=2)
        seconds, wall_seconds = watch.seconds, watch.wall_seconds

    problem = answer.json()
    assert wall_seconds >= 0.3
    assert seconds < 3
    assert (answer.status_code, problem["code"]) == (503, "not-yet-projected")
    assert (problem["limit"], problem["value"]) == (0.3, 1)
    assert answer.headers["retry-after"]


@pytest.mark.parametrize("after", [0, 1])
async def test_a_read_after_a_projected_position_does_not_wait(app: App, after: int) -> None:
    await sent(app, {})

    assert await positions(app, after=after) == [1]


# -- receipts ----------------------------------------------------------------------------------------------------------


async def receipt(app: App, position: int, **parameters: Any) -> dict[str, Any]:
    """The outcome at a position, with the HTTP status."""
    answer = await app.get(f"/api/receipts/{position}", **parameters)
    return {"http": answer.status_code, **answer.json()}


async def test_a_receipt_is_queued_and_then_projected(app: App) -> None:
    name = (await app.post(body())).json()["event_hash"]

    before = await receipt(app, 1)
    await app.project()
    after = await receipt(app, 1)

    assert before == {"http": 200, "status": "queued", "event_hash": name, "position": 1}
    assert after == {"http": 200, "status": "projected", "event_hash": name, "position": 1}


async def test_a_late_duplicates_receipt_names_the_first_position(server: Server, app: App) -> None:
    for _ in range(2):
        for members in ({"session_id": "A"}, {"event_id": "e1"}):
            await app.post(body(**members))
        server.client.delete(*server.client.keys("*:dedup:*"))
    await app.project()

    receipts = [await receipt(app, position) for position in (3, 4)]

    assert [(outcome["status"], outcome["position"], outcome["first_position"]) for outcome in receipts] == [
        ("late_duplicate", 3, 1),
        ("late_duplicate", 4, 2),
    ]
    assert [outcome["event_hash"] for outcome in receipts] == [
        event_identity("acme", event(**m))[0] for m in ({"session_id": "A"}, {"event_id": "e1"})
    ]


async def test_a_late_event_with_other_content_is_quarantined_and_its_receipt_says_why(server: Server, app: App) -> None:
    await app.post(body(n=1))
    server.client.delete(*server.client.keys("*:dedup:*"))
    await app.post(body(n=2))
    await app.project()

    outcome = await receipt(app, 2)

    assert (outcome["http"], outcome["status"], outcome["reason"], outcome["position"]) == (200, "quarantined", "conflict", 2)
    assert outcome["detail"]
    assert await positions(app) == [1]


async def test_a_record_that_is_no_valid_event_is_quarantined_and_its_receipt_says_why(server: Server, app: App) -> None:
    await app.post(body())
    server.client.xadd(keys_of("acme").log, {"event": "no json", "received_at_us": 1, "version": 1}, id="2-0")
    queued = await receipt(app, 2)
    await app.post(body(session_id="behind it"))
    await app.project()

    outcome = await receipt(app, 2)

    assert (queued["http"], queued["status"]) == (200, "queued")
    assert (outcome["http"], outcome["status"], outcome["reason"]) == (200, "quarantined", "invalid")
    assert await positions(app) == [3, 1]


FAR = 2**63 - 1
NOWHERE = ["0", "2", f"{FAR}", f"{FAR + 1}", "1" * 30, "9" * 5_000, "-1", "+1", "one", "1.0", "%D9%A1"]


@pytest.mark.parametrize("position", NOWHERE, ids=lambda text: text[:20])
async def test_a_position_without_an_event_is_answered_404(app: App, position: str) -> None:
    await sent(app, {})

    answer = await app.get(f"/api/receipts/{position}")

    assert (answer.status_code, answer.json()["status"]) == (404, 404)
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_receipt_is_found_by_the_events_hash(app: App) -> None:
    name = (await app.post(body())).json()["event_hash"]

    queued = (await app.get("/api/receipts", event_hash=name)).json()
    await app.project()
    projected = (await app.get("/api/receipts", event_hash=name)).json()

    assert queued == {"status": "queued", "event_hash": name, "position": 1}
    assert projected == {"status": "projected", "event_hash": name, "position": 1}


async def test_two_events_with_the_same_hash_are_both_found_by_it(app: App) -> None:
    first = (await app.post(body(session_id="S1", event_type="2x"))).json()
    second = (await app.post(body(session_id="S12", event_type="x"))).json()
    await app.project()

    outcome = (await app.get("/api/receipts", event_hash=first["event_hash"])).json()

    assert first["event_hash"] == second["event_hash"]
    assert (first["status"], second["status"]) == ("accepted", "accepted")
    assert [outcome["position"], *(other["position"] for other in outcome["others"])] == [1, 2]
    assert {outcome["status"], outcome["others"][0]["status"]} == {"projected"}


async def test_a_receipt_is_found_by_hash_within_the_window_and_by_position_always(server: Server, tmp_path: Path) -> None:
    async with opened(server, tmp_path, DEDUP_WINDOW_SECONDS=1) as app:
        name = (await app.post(body())).json()["event_hash"]
        await app.project()
        within = await app.get("/api/receipts", event_hash=name)
        await asyncio.to_thread(wait_until, lambda: not server.client.exists(keys_of("acme").dedup + name), "the window is over")

        beyond = await app.get("/api/receipts", event_hash=name)

        assert within.status_code == 200
        assert (beyond.status_code, beyond.json()["code"]) == (404, "receipt-unknown")
        assert (await receipt(app, 1))["status"] == "projected"


@pytest.mark.parametrize("value", ["", "x", "A" * 32, "a" * 31, "a" * 33, "a" * 31 + "é"])
async def test_an_invalid_hash_is_answered_400(app: App, value: str) -> None:
    answer = await app.get("/api/receipts", event_hash=value)

    assert (answer.status_code, answer.json()["parameter"]) == (400, "event_hash")


# -- tenants -----------------------------------------------------------------------------------------------------------


async def test_a_tenant_never_sees_another_tenants_data(app: App) -> None:
    await sent(app, *({"session_id": "shared", "canary": "theirs", "event_id": f"{i}"} for i in range(5)), tenant="acme.other")
    await sent(app, {"session_id": "secret", "canary": "theirs"}, tenant="acme.other")
    await sent(app, {"session_id": "shared", "canary": "ours", "event_id": "0"}, tenant="acme")
    other_hash = event_identity("acme.other", event(session_id="secret", canary="theirs"))[0]

    rows = (await app.get("/api/events")).json()["events"]
    session = (await app.get("/api/sessions/shared")).json()
    seen = [
        (await app.get(path)).text
        for path in ("/api/events", "/api/sessions", "/api/sessions/shared", "/api/events?session_id=shared", "/api/receipts/1")
    ]

    assert [(row["position"], row["properties"]) for row in rows] == [(1, {"canary": "ours"})]
    assert (session["event_count"], len(session["events"])) == (1, 1)
    assert await session_ids(app) == ["shared"]
    assert not any("theirs" in text or "secret" in text for text in seen)
    assert (await app.get("/api/sessions/secret")).status_code == 404
    assert (await app.get("/api/receipts", event_hash=other_hash)).status_code == 404
    assert (await receipt(app, 2))["http"] == 404
    assert (await receipt(app, 1, after=1))["http"] == 200
    assert (await app.get("/api/events", after=2)).json()["value"] == 1


async def test_another_tenants_cursor_shows_only_the_readers_own_rows(app: App) -> None:
    await sent(app, *({"event_id": f"{i}", "canary": "theirs"} for i in range(5)), tenant="other")
    await sent(app, *({"event_id": f"{i}", "canary": "ours"} for i in range(2)))
    cursor = (await app.get("/api/events", tenant="other", limit=2)).json()["next"]

    rows = (await app.get("/api/events", cursor=cursor)).json()["events"]

    assert {row["properties"]["canary"] for row in rows} == {"ours"}


async def test_a_tenant_that_never_sent_anything_sees_nothing(app: App) -> None:
    await sent(app, {}, tenant="other")

    assert (await positions(app), await session_ids(app)) == ([], [])
    assert (await receipt(app, 1))["http"] == 404


# -- events without a session ------------------------------------------------------------------------------------------


async def test_events_sent_without_a_session_show_their_derived_session(app: App) -> None:
    came = [("e1", 0, {"anonymous_id": "a"}), ("e2", 9, {"user_id": "u", "anonymous_id": "a"}), ("e3", 5, {"user_id": "null"})]
    identify = make_event(session_id="S1", event_type="identify", timestamp=moment(3), event_id="e4", properties=came[1][2])
    without = [
        make_event(session_id="", event_type="view", timestamp=moment(second), event_id=event_id, properties=properties)
        for event_id, second, properties in came
    ]
    await app.log.append("acme", [*without, identify])
    await app.project()

    session_rows = (await app.get("/api/sessions")).json()["sessions"]
    [name] = {session["session_id"] for session in session_rows} - {"S1"}
    session = (await app.get(f"/api/sessions/{name}")).json()
    rows = (await app.get("/api/events")).json()["events"]

    assert name == f"~{rows[-1]['event_hash']}"
    assert [(row["user_id"], row["anonymous_id"], row["event_count"]) for row in session_rows] == [
        ("u", "a", 2),
        ("u", "a", 1),
    ]
    assert [(row["event_id"], row["session_id"], row["session"]) for row in rows] == [
        ("e2", "", name),
        ("e3", "", None),
        ("e4", "S1", "S1"),
        ("e1", "", name),
    ]
    assert [event["event_id"] for event in session["events"]] == ["e2", "e1"]
    assert await positions(app, session_id=name) == [2, 1]
    assert await session_ids(app, user_id="u") == [name, "S1"]
    assert await session_ids(app, user_id="nobody") == []
    assert (await app.get("/api/events", user_id="u")).status_code == 400


# -- query plans -------------------------------------------------------------------------------------------------------

CHOICES = [
    dict(zip(("session_id", "user_id", "event_type", "since_us", "until_us"), choice, strict=True))
    for choice in itertools.product(("S1", None), ("u", None), ("page_view", None), (0, None), (2**60, None))
]


def plan(store: SqliteStore, query: tuple[str, Sequence[Any]]) -> list[str]:
    """The steps of SQLite's query plan."""
    statement, values = query
    with store.reading() as connection:
        return [step[3] for step in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]


@pytest.mark.parametrize("place", [None, (1, 1)], ids=["first page", "next page"])
@pytest.mark.parametrize(
    "choice", CHOICES, ids=lambda choice: "+".join(key for key in choice if choice[key] is not None) or "all"
)
@pytest.mark.parametrize("analyzed", [False, True], ids=["", "analyzed"])
def test_every_page_uses_an_index_of_the_tenant_and_never_scans_or_sorts(
    store: SqliteStore, choice: dict[str, Any], place: tuple[int, int] | None, analyzed: bool
) -> None:
    if analyzed:
        fill(store)
        store._connection.execute("ANALYZE")
    filters = Filters(**choice)

    for query in (
        events_query("acme", filters, place, 100, generation=1),
        sessions_query("acme", filters, place, 100, generation=1),
    ):
        steps = plan(store, query)

        searches = [step for step in steps if step.startswith("SEARCH")]
        assert searches, steps
        assert all("INDEX" in step or "PRIMARY KEY" in step for step in searches), steps
        assert all("(tenant_id=?" in step for step in searches), steps
        assert not any("SCAN" in step or "TEMP B-TREE" in step for step in steps), steps
        assert narrowest(choice, query[0]) in searches[0], steps


def narrowest(choice: dict[str, Any], statement: str) -> str:
    """The index that the first search must use.

    A session has few events; a type may have most of a tenant's events.
    """
    if statement.startswith("SELECT session_id"):
        if choice["session_id"]:
            return "session_id=?"
        return "user_id=?" if choice["user_id"] else "event_sessions"
    if choice["session_id"]:
        return "session_position=?"
    return "event_type=?" if choice["event_type"] else "events_by_time"


def fill(store: SqliteStore) -> None:
    """Rows with the usual proportions, for the query planner.

    Many events have the same time; a session and a type have few of a tenant's events.
    """
    with store.transaction():
        store._connection.executemany(
            "INSERT INTO events (tenant_id, position, event_hash, hash_parts, session_id, event_type, timestamp, timestamp_us, "
            "received_at_us, properties, session_position) VALUES ('acme', ?, ?, '2.1', ?, ?, '', ?, 0, '{}', ?)",
            [(i, f"{i}", f"S{i % 500}", f"type {i % 20}", i // 10, i % 500 + 1) for i in range(1, 5_001)],
        )
        store._connection.executemany(
            "INSERT INTO event_sessions (tenant_id, first_position, session_id, started_at_us, last_event_at_us, event_count, "
            "first_event_type, last_event_type) VALUES ('acme', ?, ?, 0, ?, 200, 'page_view', 'page_view')",
            [(i + 1, f"S{i}", i) for i in range(500)],
        )


@pytest.mark.parametrize(
    "filters", [Filters(), Filters(session_id="S0"), Filters(session_id="S0", event_type="page_view")], ids=str
)
async def test_a_page_reads_only_the_rows_that_it_shows(app: App, filters: Filters) -> None:
    await app.log.append("acme", events(4_000, sessions=1))
    await app.project()

    assert steps_of(app.store, filters, limit=10) < 2_000


def steps_of(store: SqliteStore, filters: Filters, limit: int) -> int:
    """How many hundreds of SQLite's virtual machine steps a page takes."""
    taken = 0

    def count() -> int:
        nonlocal taken
        taken += 100
        return 0

    with store.reading() as connection:
        connection.set_progress_handler(count, 100)
        statement, values = events_query("acme", filters, None, limit, generation=1)
        assert len(connection.execute(statement, values).fetchall()) == limit
        connection.set_progress_handler(None, 0)
    return taken
