"""Events without a session get one by their identity and time.

The same events give the same sessions, in any order and in any batches.
"""

import json
import random
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projector import Filters
from projector.live.worker import Worker
from projector.projection import EventRow, identities, project
from projector.projection.identities import ACTOR_LIMIT_IDENTITIES, NO_NAMES, named_in
from projector.rebuild import replay as replaying
from projector.rebuild.point_in_time import Cut, write
from projector.rebuild.rebuild import rebuild, rollback
from projector.rebuild.verify import verify
from projector.store import LIVE
from projector.store.sqlite import SqliteStore, actors, stage_rows
from projector.store.sqlite.columns import EVENT
from projector.store.sqlite.schema import LIVE as LIVE_SUFFIX
from projector.store.sqlite.tombstones import Tombstones
from streams import Event, Log, Record, make_event
from streams.validation import microseconds

MINUTE_US = 60_000_000
GAP_MINUTES = 30
SMALL_ACTOR_LIMIT = 5  # the most identities of an actor, where a test has larger actors
PLACEHOLDER_IDS = (None, "", "null", "Anonymous", 0)


class Sent(NamedTuple):
    """An event as a test sends it; `minute` is its time."""

    event_id: str
    minute: int
    event_type: str = "view"
    session_id: str = ""
    user_id: Any = None
    anonymous_id: Any = None
    previous_id: Any = None

    @property
    def body(self) -> bytes:
        """As the log stores it."""
        ids = {"user_id": self.user_id, "anonymous_id": self.anonymous_id, "previous_id": self.previous_id}
        stored = {
            "event_id": self.event_id,
            "event_type": self.event_type,
            "properties": {name: value for name, value in ids.items() if value is not None},
            "session_id": self.session_id,
            "timestamp": f"2026-01-01T{self.minute // 60:02}:{self.minute % 60:02}:00Z",
        }
        return json.dumps(stored, sort_keys=True, separators=(",", ":")).encode()


def log_of(events: Iterable[Sent]) -> list[Record]:
    return [Record(i, i, 1, sent.body) for i, sent in enumerate(events, 1)]


def apply(store: SqliteStore, log: Sequence[Record], chance: random.Random | None = None) -> None:
    """Apply a log, in batches of random size if `chance` is given."""
    after = store.tables().checkpoint("acme").position
    while after < len(log):
        through = min(len(log), after + chance.randint(1, 6)) if chance else len(log)
        assert store.apply([project("acme", after, log[after:through], through)]) == [True]
        after = through


def replay(store: SqliteStore, log: Sequence[Record], chance: random.Random) -> None:
    """Apply a log through files of rows, as a parallel rebuild does."""
    with tempfile.TemporaryDirectory() as folder:
        after = 0
        while after < len(log):
            batches = []
            for _ in range(chance.randint(1, 3)):
                through = min(len(log), after + chance.randint(1, 6))
                if through > after:
                    batches.append(project("acme", after, log[after:through], through))
                after = through
            store.write(LIVE, stage_rows(str(Path(folder, str(after))), batches))


# -- actual sessions ----------------------------------------------------------------------------------------------------


class Session(NamedTuple):
    """A session and the ids of its events, without positions."""

    name: str
    started_at_us: int
    last_event_at_us: int
    event_count: int
    first_event_type: str
    last_event_type: str
    user_id: str | None
    anonymous_id: str | None
    derived: int
    events: tuple[str, ...]


def sessions_in(store: SqliteStore) -> list[Session]:
    """All sessions with their events.

    Asserts that a session stands at the smallest position of its events.
    """
    columns = "session_id, started_at_us, last_event_at_us, event_count, first_event_type, last_event_type, user_id, anonymous_id, derived"
    sessions = []
    of_session = "SELECT position, event_id FROM events WHERE tenant_id = ? AND session_position = ?"
    with store.transaction():
        for tenant, first, *session in store.execute(
            f"SELECT tenant_id, first_position, {columns} FROM event_sessions"
        ).fetchall():
            events = store.execute(of_session, (tenant, first)).fetchall()
            assert (min(events)[0], len(events)) == (first, session[3])
            sessions.append(Session._make([*session, tuple(sorted(event_id for _, event_id in events))]))
        [(counted,)] = store.execute("SELECT count(*) FROM events WHERE session_position <> 0").fetchall()
    assert counted == sum(session.event_count for session in sessions), "an event names a session that does not exist"
    return sorted(sessions)


def dump(store: SqliteStore) -> dict[str, list[tuple[Any, ...]]]:
    """Every row that is derived from the log."""
    keys = {
        "events": "position",
        "event_sessions": "first_position",
        "identity_links": "identity, linked_identity",
        "checkpoints": "position",
    }
    with store.transaction():
        return {
            table: store.execute(f"SELECT * FROM {table} ORDER BY tenant_id, {key}").fetchall() for table, key in keys.items()
        }


# -- expected sessions, computed another way -----------------------------------------------------------------------------


def real_id(value: Any) -> str | None:
    return None if value in PLACEHOLDER_IDS else str(value)


def identity_of(event: Sent) -> str | None:
    if real_id(event.user_id):
        return f"u:{event.user_id}"
    return f"a:{event.anonymous_id}" if real_id(event.anonymous_id) else None


def components(events: Sequence[Sent]) -> list[set[str]]:
    """Linked identities, as sets that do not overlap."""
    groups: list[set[str]] = []
    for event in events:
        if event.event_type not in ("identify", "alias"):
            continue
        linked = {f"u:{name}" for name in (event.user_id, event.previous_id) if real_id(name)}
        linked |= {f"a:{name}" for name in (event.anonymous_id, event.previous_id) if real_id(name)}
        touched = [group for group in groups if group & linked]
        groups = [group for group in groups if not group & linked] + [linked.union(*touched)]
    return groups


def expected(events: Sequence[Sent], log: Sequence[Record]) -> list[Session]:
    """The sessions of a set of events, computed from all at once.

    Events of sent sessions are ordered by position where times are equal.
    """
    hashes = {row.event_id: row.event_hash for row in project("acme", 0, log, len(log)).rows}
    linked = [group for group in components(events) if len(group) <= identities.ACTOR_LIMIT_IDENTITIES]
    groups: dict[Any, list[Sent]] = {}
    for event in events:
        identity = identity_of(event)
        actor = next((frozenset(group) for group in linked if identity in group), frozenset({identity}))
        if event.session_id or identity is not None:
            groups.setdefault(event.session_id or actor, []).append(event)
    sessions = []
    for key, members in groups.items():
        if isinstance(key, str):
            sessions.append(session_of(key, members, None, lambda event: events.index(event), 0))
            continue
        users = [identity[2:] for identity in key if identity.startswith("u:") and f"a:{identity[2:]}" not in key]
        members.sort(key=lambda event: (event.minute, hashes[event.event_id]))
        runs: list[list[Sent]] = []
        for event in members:
            if not runs or event.minute - runs[-1][-1].minute > GAP_MINUTES:
                runs.append([])
            runs[-1].append(event)
        for run in runs:
            name = f"~{hashes[run[0].event_id]}"
            last = max(run, key=lambda event: (event.minute, event.event_type))
            session = session_of(name, run, min(users, default=None), lambda event: hashes[event.event_id], 1)
            sessions.append(session._replace(last_event_type=last.event_type))
    return sorted(sessions)


def session_of(name: str, events: Sequence[Sent], user_id: str | None, tie: Any, derived: int) -> Session:
    ordered = sorted(events, key=lambda event: (event.minute, tie(event)))
    users = [name for name in (user_id, *(real_id(event.user_id) for event in events)) if name]
    anonymous = [name for name in (real_id(event.anonymous_id) for event in events) if name]
    return Session(
        name,
        microseconds(json.loads(ordered[0].body)["timestamp"]),
        microseconds(json.loads(ordered[-1].body)["timestamp"]),
        len(events),
        ordered[0].event_type,
        ordered[-1].event_type,
        min(users, default=None),
        min(anonymous, default=None),
        derived,
        tuple(sorted(event.event_id for event in events)),
    )


# -- the property --------------------------------------------------------------------------------------------------------


@st.composite
def sets_of_events(draw: st.DrawFn) -> list[Sent]:
    """Events of few people close in time, most without a session.

    Some link identities, some have none.
    """
    people = st.sampled_from(["1", "2", "3", "é", *PLACEHOLDER_IDS])
    events = []
    for i in range(draw(st.integers(1, 24))):
        kind = draw(st.sampled_from(["view", "view", "view", "click", "identify", "alias"]))
        session_id = draw(st.sampled_from(["", "", "", "S1", "S2"]))
        previous = draw(people) if kind == "alias" else None
        minute = draw(st.integers(0, 14)) * 15
        events.append(Sent(f"e{i}", minute, kind, session_id, draw(people), draw(people), previous))
    return events


@pytest.fixture
def small_actor_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Actors reach their limit with few identities."""
    monkeypatch.setattr(identities, "ACTOR_LIMIT_IDENTITIES", SMALL_ACTOR_LIMIT)
    monkeypatch.setattr(actors, "ACTOR_LIMIT_IDENTITIES", SMALL_ACTOR_LIMIT)


@pytest.mark.usefixtures("small_actor_limit")
def test_the_same_events_give_the_same_sessions_in_any_order_and_batches() -> None:
    @settings(deadline=None, max_examples=80)
    @given(events=sets_of_events(), seed=st.integers(0, 2**32))
    def holds(events: list[Sent], seed: int) -> None:
        chance = random.Random(seed)
        chance.shuffle(events)
        log = log_of([*events, *chance.choices(events, k=4)])  # duplicates, each after its first
        with SqliteStore(":memory:") as whole, SqliteStore(":memory:") as pieces, SqliteStore(":memory:") as replayed:
            apply(whole, log)
            apply(pieces, log, chance)
            replay(replayed, log, chance)

            assert sessions_in(whole) == expected(events, log)
            assert dump(pieces) == dump(whole)
            assert dump(replayed) == dump(whole)

    holds()


@pytest.mark.usefixtures("small_actor_limit")
def test_tables_after_a_deletion_equal_tables_without_the_deleted_events() -> None:
    @settings(deadline=None, max_examples=60)
    @given(events=sets_of_events(), seed=st.integers(0, 2**32))
    def holds(events: list[Sent], seed: int) -> None:
        chance = random.Random(seed)
        log = log_of(events)
        tombstones = set(chance.sample(range(1, len(log) + 1), chance.randint(1, len(log))))
        remaining = [record for record in log if record.position not in tombstones]
        with SqliteStore(":memory:") as store, SqliteStore(":memory:") as reference:
            apply(store, log, chance)
            delete(store, tombstones)
            reference.apply([project("acme", 0, remaining, remaining[-1].position)] if remaining else [])

            for table in ("events", "event_sessions", "identity_links"):
                assert dump(store)[table] == dump(reference)[table]

    holds()


def delete(store: SqliteStore, positions: set[int]) -> None:
    """Delete events and derive the sessions again."""
    with store.transaction():
        where = f"FROM events WHERE tenant_id = 'acme' AND position IN ({', '.join(map(str, positions))})"
        deleted = [
            (EventRow(*row), session_position)
            for session_position, *row in store.execute(f"SELECT session_position, {EVENT} {where}").fetchall()
        ]
        store.execute(f"DELETE {where}")
        Tombstones(store._connection, LIVE_SUFFIX).refold("acme", deleted)


# -- the rule, one case at a time ------------------------------------------------------------------------------------------


def derived(store: SqliteStore) -> list[tuple[str, ...]]:
    """The event ids of each derived session."""
    return sorted(session.events for session in sessions_in(store) if session.derived)


def at(*minutes: int, user_id: Any = "1") -> list[Sent]:
    """Events of a user, each named by its minute."""
    return [Sent(f"m{minute}", minute, user_id=user_id) for minute in minutes]


def test_a_gap_of_exactly_the_limit_ends_no_session(store: SqliteStore) -> None:
    apply(store, log_of(at(0, 30, 61)))

    assert derived(store) == [("m0", "m30"), ("m61",)]


def test_a_late_event_joins_two_sessions_into_one(store: SqliteStore) -> None:
    log = log_of([*at(40), *at(0), *at(20)])

    apply(store, log[:2])
    before = sessions_in(store)
    apply(store, log)

    assert [session.events for session in before] == [("m0",), ("m40",)] or [session.events for session in before] == [
        ("m40",),
        ("m0",),
    ]
    [joined] = sessions_in(store)
    assert joined.events == ("m0", "m20", "m40")
    assert joined.name in {session.name for session in before if session.events == ("m0",)}


def test_identify_joins_the_events_before_and_after_it(store: SqliteStore) -> None:
    before = [Sent("before", 0, anonymous_id="a"), Sent("long before", 500, anonymous_id="a")]
    link = Sent("link", 10, "identify", "sent", user_id="u", anonymous_id="a")
    log = log_of([*before, Sent("after", 20, user_id="u"), link])

    apply(store, log[:3])
    assert derived(store) == [("after",), ("before",), ("long before",)]
    apply(store, log)

    assert derived(store) == [("after", "before"), ("long before",)]
    assert {session.user_id for session in sessions_in(store)} == {"u"}


def test_an_id_replaced_by_an_alias_is_no_longer_the_user_of_a_session(store: SqliteStore) -> None:
    seen = Sent("seen", 0, anonymous_id="a")
    identified = Sent("identified", 0, "identify", "S1", user_id="before", anonymous_id="a")
    renamed = Sent("renamed", 0, "alias", "S1", user_id="now", previous_id="before")
    log = log_of([seen, identified, renamed])

    apply(store, log[:2])
    assert [session.user_id for session in sessions_in(store) if session.derived] == ["before"]
    apply(store, log)

    assert [session.user_id for session in sessions_in(store) if session.derived] == ["now"]


@pytest.mark.parametrize("size", [ACTOR_LIMIT_IDENTITIES, ACTOR_LIMIT_IDENTITIES + 1])
def test_an_actor_with_too_many_identities_is_split_into_its_identities(store: SqliteStore, size: int) -> None:
    """Many visitors share a user; the last visitor exceeds the limit."""
    visitors = range(size - 1)
    seen = [Sent(f"seen {i}", 1, anonymous_id=f"a{i}") for i in visitors]
    links = [Sent(f"link {i}", 1, "identify", "S1", user_id="shared", anonymous_id=f"a{i}") for i in visitors]
    log = log_of([*seen, *links, Sent("later", 1, user_id="shared")])

    apply(store, log, random.Random(1))

    assert len(derived(store)) == (1 if size == ACTOR_LIMIT_IDENTITIES else size)
    users = {session.user_id for session in sessions_in(store) if session.anonymous_id and session.derived}
    assert users == ({"shared"} if size == ACTOR_LIMIT_IDENTITIES else {None})


PLACEHOLDERS: list[Any] = [
    *(None, "", " ", "null", "NULL", "nil", "None", "undefined", "NaN", "0", 0, -1, "-1", "anonymous", "Guest"),
    *("unknown", "true", False, True, "[object Object]", "00000000-0000-0000-0000-000000000000", 1.5, [], {}),
    *("é" * 128 + "x", "u\0"),
]


@pytest.mark.parametrize(
    ("members", "expected_ids"),
    [
        ({"user_id": "u", "anonymous_id": "a"}, ("u", "a", "u:u")),
        ({"anonymous_id": "a"}, (None, "a", "a:a")),
        ({"user_id": 17}, ("17", None, "u:17")),
        ({"user_id": "é" * 128}, ("é" * 128, None, "u:" + "é" * 128)),
        *(({"user_id": placeholder, "anonymous_id": "a"}, (None, "a", "a:a")) for placeholder in PLACEHOLDERS),
        ({"user_id": "guest"}, (None, None, None)),
        ({"nested": {"user_id": "u"}, "product_id": "p"}, (None, None, None)),
        ({}, (None, None, None)),
    ],
    ids=lambda members: str(members)[:40],
)
def test_a_placeholder_is_no_identity(members: dict[str, Any], expected_ids: tuple[str | None, ...]) -> None:
    actual = named_in(json.dumps(members, ensure_ascii=False))

    assert (actual.user_id, actual.anonymous_id, actual.identity) == tuple(name or "" for name in expected_ids)


def test_properties_that_no_ingest_endpoint_accepts_hold_no_identity() -> None:
    for properties in (
        '{"user_id":1e999}',
        '{"user_id":"\\ud800"}',
        '{"user_id":' + "1" * 5_000 + "}",
        '{"user_id":' + "[" * 9_000,
    ):
        assert named_in(properties) == NO_NAMES


def test_an_event_without_identity_and_session_is_in_no_session(store: SqliteStore) -> None:
    apply(store, log_of([Sent("e1", 0, user_id="null")]))

    assert sessions_in(store) == []
    assert [row[-2:] for row in dump(store)["events"]] == [(0, "")]


def test_a_sent_session_with_the_name_of_a_derived_session_is_a_different_session(store: SqliteStore) -> None:
    apply(store, log_of(at(0)))
    [first] = sessions_in(store)
    log = log_of([*at(0), Sent("sent", 0, session_id=first.name, event_type="click"), *at(1)])

    apply(store, log)

    assert [(session.name, session.derived, session.events) for session in sessions_in(store)] == [
        (first.name, 0, ("sent",)),
        (first.name, 1, ("m0", "m1")),
    ]
    sent_session, events = store.queries.session("acme", Filters(session_id=first.name), None, 10)
    assert sent_session is not None and sent_session["event_count"] == 1
    assert [row["event_id"] for row in events] == ["sent"]


def test_a_sent_session_shows_the_smallest_ids_of_its_events(store: SqliteStore) -> None:
    ids = [(None, None), ("é", "b"), ("u", None), ("null", "a"), (None, "c")]
    log = log_of(
        [Sent(f"e{i}", i, session_id="S1", user_id=user, anonymous_id=anonymous) for i, (user, anonymous) in enumerate(ids)]
    )

    for i in range(len(log)):
        apply(store, log[: i + 1])

    assert [(session.user_id, session.anonymous_id) for session in sessions_in(store)] == [("u", "a")]


# -- sets of tables --------------------------------------------------------------------------------------------------------


async def filled(log: Log, worker: Worker) -> None:
    """Two tenants with events of every kind.

    Without a session, with a session, links, and an event that comes late between two sessions.
    """
    for tenant in ("acme", "beta"):
        for events in ([*at(0, 40), *at(10, user_id="2")], [Sent("id", 5, "identify", user_id="1", anonymous_id="a")]):
            await log.append(tenant, [parsed(sent) for sent in events])
            await worker.run_to_end()
        late = [*at(20), Sent("seen", 45, anonymous_id="a"), Sent("sent", 3, session_id="S1", user_id="1")]
        await log.append(tenant, [parsed(sent) for sent in late])
        await worker.run_to_end()


def parsed(sent: Sent) -> Event:
    stored = json.loads(sent.body)
    return make_event(**{name: stored[name] for name in ("session_id", "event_type", "timestamp", "event_id", "properties")})


async def differences(log: Log, store: SqliteStore) -> list[str]:
    return [difference async for difference in verify(log, store)]


@pytest.mark.anyio
async def test_rebuilt_and_rolled_back_tables_equal_live_ones(
    log: Log, store: SqliteStore, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(log, worker)
    before = dump(store)
    assert derived(store).count(("id", "m0", "m20", "m40", "seen")) == 2
    assert await differences(log, store) == []

    await rebuild(log, store)
    assert dump(store) == before
    monkeypatch.setattr(replaying, "PROCESS_RECORDS", 1)
    await rebuild(log, store)
    assert dump(store) == before
    await rebuild(log, store, tenants=["acme"])
    assert dump(store) == before
    await log.append("acme", [parsed(sent) for sent in at(60)])
    await rollback(log, store)
    assert derived(store).count(("id", "m0", "m20", "m40", "m60", "seen")) == 1
    assert await differences(log, store) == []


@pytest.mark.anyio
async def test_verify_names_a_session_and_a_link_that_differ_from_the_log(log: Log, store: SqliteStore, worker: Worker) -> None:
    await filled(log, worker)
    with store.transaction():
        store.execute("DELETE FROM identity_links WHERE tenant_id = 'acme' AND identity = 'u:1'")
        store.execute("UPDATE event_sessions SET user_id = 'x' WHERE tenant_id = 'beta' AND session_id = 'S1'")

    assert await differences(log, store) == [
        "identity_links of acme: identity, linked_identity ('u:1', 'a:a') is in the log, not in the tables",
        "event_sessions of beta: first_position 7 differs: user_id is 'x', the log says '1'",
    ]


@pytest.mark.anyio
async def test_a_new_session_gap_takes_effect_with_the_next_rebuild_of_all_tenants(
    log: Log, store: SqliteStore, worker: Worker, tmp_path: Path
) -> None:
    await filled(log, worker)
    with SqliteStore(store.path, session_gap_us=9 * MINUTE_US) as shorter_gap:
        assert (shorter_gap.session_gap_us(), await differences(log, shorter_gap)) == (30 * MINUTE_US, [])
        await rebuild(log, shorter_gap, tenants=["acme"])
        assert (shorter_gap.session_gap_us(), await differences(log, shorter_gap)) == (30 * MINUTE_US, [])
        await write(log, shorter_gap, str(tmp_path / "out.db"), Cut(position=7), tenants=["acme"])
        await rebuild(log, shorter_gap)

        assert (shorter_gap.session_gap_us(), await differences(log, shorter_gap)) == (9 * MINUTE_US, [])
        assert derived(shorter_gap)[::2] == [("id", "m0"), ("m10",), ("m20",), ("m40", "seen")]
        await rollback(log, shorter_gap)
        assert (shorter_gap.session_gap_us(), await differences(log, shorter_gap)) == (30 * MINUTE_US, [])
    with SqliteStore(str(tmp_path / "out.db"), session_gap_us=9 * MINUTE_US) as written:
        assert (written.session_gap_us(), derived(written)[0]) == (30 * MINUTE_US, ("id", "m0", "m20", "m40", "seen"))
    with SqliteStore(str(tmp_path / "new.db"), session_gap_us=9 * MINUTE_US) as new:
        assert new.session_gap_us() == 9 * MINUTE_US


@pytest.mark.anyio
async def test_no_row_of_a_deleted_tenant_remains(log: Log, store: SqliteStore, worker: Worker) -> None:
    await filled(log, worker)
    with store.rebuilding():
        removed = store.delete_tenant("acme")

    assert removed["identity_links"] == 2
    assert all(row[0] == "beta" for rows in dump(store).values() for row in rows)
