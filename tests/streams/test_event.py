"""Any bytes become an event that every table can hold, or are refused.

A refusal has a reason. No two events share an identity.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from projector.projection import project
from projector.store.sqlite import SqliteStore
from projector.store.sqlite.table_set import TableSet
from streams import Event, Record, Rejected, digest_of, event_identity, parse_body, parse_event
from streams.validation import decode_json, microseconds
from tests.support.events import body, event
from tests.support.json_values import ACCEPTED, NAMED, REFUSED, with_member


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteStore]:
    with SqliteStore(str(Path(tmp_path_factory.mktemp("event"), "tables.db")), cache_mib=8) as store:
        yield store


def stored(tables: SqliteStore, tenant: str, bodies: list[bytes]) -> list[dict[str, Any]]:
    """Apply bodies as records of a new tenant; returns their rows."""
    records = [Record(i, 1_700_000_000_000_000, 1, body) for i, body in enumerate(bodies, 1)]
    assert tables.apply([project(tenant, 0, records, len(records))]) == [True]
    with tables.reading() as connection:
        live = TableSet(connection)
        assert list(live.rows("quarantine", tenant)) == []
        return list(live.rows("events", tenant))


# -- parsing -------------------------------------------------------------------------------------------------------------


def test_an_event_has_members_and_properties() -> None:
    parsed = event(session_id="S9", event_id="e1", page="/a", nested={"b": [1, None]})

    assert (parsed.session_id, parsed.event_type, parsed.event_id) == ("S9", "page_view", "e1")
    assert parsed.timestamp == "2026-01-01T10:00:00Z"
    assert parsed.timestamp_us == 1_767_261_600_000_000
    assert json.loads(parsed.properties) == {"page": "/a", "nested": {"b": [1, None]}}


def test_a_stored_body_is_json_with_sorted_keys() -> None:
    parsed = parse_event(b' {"timestamp":"2026-01-01T10:00:00Z", "b": 1.50, "session_id":"S1","a":"\\u0041", "event_type":"t"}\n')

    assert json.loads(parsed.body) == {
        "session_id": "S1",
        "event_type": "t",
        "timestamp": "2026-01-01T10:00:00Z",
        "properties": {"a": "A", "b": 1.5},
    }
    assert parsed.properties == b'{"a":"A","b":1.5}'


@pytest.mark.parametrize("field", ["session_id", "event_type", "timestamp"])
@pytest.mark.parametrize("value", [None, 1, "", [], {}, True, "x" * 257], ids=repr)
def test_a_wrong_member_is_refused_and_named(field: str, value: Any) -> None:
    with pytest.raises(Rejected) as refused:
        parse_event(body(**{field: value}))

    assert refused.value.field == field
    assert refused.value.reason


@pytest.mark.parametrize("field", ["session_id", "event_type", "timestamp"])
def test_a_missing_member_is_refused_and_named(field: str) -> None:
    members = json.loads(body())
    del members[field]

    with pytest.raises(Rejected) as refused:
        parse_event(json.dumps(members).encode())

    assert (refused.value.field, refused.value.reason) == (field, "is missing")


def test_an_id_that_is_too_long_is_refused_with_its_limit_and_length() -> None:
    with pytest.raises(Rejected) as refused:
        event(session_id="é" * 129)

    assert (refused.value.field, refused.value.limit, refused.value.value) == ("session_id", 256, 258)
    assert event(session_id="é" * 128).session_id == "é" * 128


@pytest.mark.parametrize("value", [5, "", [], "x" * 257], ids=repr)
def test_a_wrong_event_id_is_refused_and_named(value: Any) -> None:
    with pytest.raises(Rejected) as refused:
        event(event_id=value)

    assert refused.value.field == "event_id"


def test_an_event_id_of_null_is_a_missing_event_id() -> None:
    assert event(event_id=None) == event()


@pytest.mark.parametrize("raw", [b"", b"null", b"[]", b'"x"', b"1", b"{", b"{}x", b"\xef\xbb\xbf" + body(), body() + body()])
def test_a_body_that_is_no_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(Rejected):
        parse_event(raw)


def test_another_encoding_is_refused() -> None:
    for encoding in ("utf-16", "utf-16-le", "utf-32", "utf-8-sig"):
        with pytest.raises(Rejected):
            parse_event(body().decode().encode(encoding))


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 100_000,
        body(),
        b'{"session_id":"S","event_type":"t","timestamp":"2026-01-01T10:00:00Z","properties":[]}',
        b'{"session_id":"S","event_type":"t","timestamp":"now","properties":{}}',
        b'{"session_id":"S","event_type":"","timestamp":"2026-01-01T10:00:00Z","properties":{}}',
        b'{"session_id":1,"event_type":"t","timestamp":"2026-01-01T10:00:00Z","properties":{}}',
    ],
    ids=range(10),
)
def test_a_stored_body_that_penstock_did_not_write_is_refused(stored: bytes) -> None:
    with pytest.raises(Rejected) as refused:
        parse_body(stored)

    assert refused.value.reason


@given(st.binary(max_size=60))
def test_any_stored_bytes_are_an_event_or_refused(stored: bytes) -> None:
    with pytest.raises(Rejected):
        parse_body(stored)


# -- timestamps ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-01-01T10:00:00+02:00", 1_767_254_400_000_000),
        ("2026-01-01t10:00:00z", 1_767_261_600_000_000),
        ("2026-01-01T10:00:00-00:00", 1_767_261_600_000_000),
        ("2026-01-01T10:00:00.000001Z", 1_767_261_600_000_001),
        ("2026-01-01T10:00:00.123456789Z", 1_767_261_600_123_457),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("0001-01-01T00:00:00Z", -62_135_596_800_000_000),
        ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
    ],
)
def test_a_timestamp_is_microseconds_in_utc(timestamp: str, expected: int) -> None:
    assert microseconds(timestamp) == expected


@pytest.mark.parametrize(
    "timestamp",
    [
        "2026-01-01",
        "2026-01-01T10:00:00",
        "2026-01-01T10:00Z",
        "2026-02-30T10:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T10:00:60Z",
        "2026-01-01T10:00:00+24:00",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "9999-12-31T23:59:59.9999999Z",
        "1767261600",
        "２０２６-01-01T10:00:00Z",
        " 2026-01-01T10:00:00Z",
        "now",
        "2026-01-01T10:00:00." + "1" * 60 + "Z",
        "2026-01-01T10:00:00\\u005a",
        '2026-01-01T10:00:00Z"',
        '2026-01-01T10:00:00Z","session_id":"S2',
    ],
)
def test_a_timestamp_that_is_no_moment_is_refused(timestamp: str) -> None:
    with pytest.raises(Rejected) as refused:
        event(timestamp=timestamp)

    assert refused.value.field == "timestamp"


@given(st.text(max_size=40) | st.datetimes().map(lambda moment: moment.isoformat() + "Z"))
def test_any_text_is_a_moment_or_refused(text: str) -> None:
    try:
        moment = microseconds(text)
    except Rejected:
        return

    assert -62_135_596_800_000_000 <= moment <= 253_402_300_799_999_999


# -- identities ----------------------------------------------------------------------------------------------------------


def test_the_hash_is_the_md5_of_the_plain_concatenation() -> None:
    joined = "acme" + "S123" + "page_view" + "2026-01-01T10:00:00Z"

    event_hash, hash_parts = event_identity(
        "acme", event(session_id="S123", event_type="page_view", timestamp="2026-01-01T10:00:00Z")
    )

    assert event_hash == hashlib.md5(joined.encode()).hexdigest()
    assert hash_parts == "4.9"


def test_the_hash_of_an_event_with_an_id_is_the_md5_of_tenant_and_id() -> None:
    assert event_identity("acme", event(event_id="e-1")) == (hashlib.md5(b"acmee-1").hexdigest(), "id")


def test_one_concatenation_with_two_hash_parts_is_two_identities() -> None:
    first, second = event(session_id="S1", event_type="2x"), event(session_id="S12", event_type="x")

    assert event_identity("acme", first)[0] == event_identity("acme", second)[0]
    assert event_identity("acme", first)[1] != event_identity("acme", second)[1]


def test_the_digest_of_an_event_does_not_depend_on_its_spelling() -> None:
    first = parse_event(NAMED + b',"a":1,"b":"A"}')
    second = parse_event(b'{"b":"\\u0041",  "a":1,' + NAMED[1:] + b"}")

    assert digest_of(first.body) == digest_of(second.body)
    assert digest_of(first.body) != digest_of(parse_event(NAMED + b',"a":2,"b":"A"}').body)


short_texts = st.text(alphabet="12", min_size=1, max_size=3)
moments = st.sampled_from(["2026-01-01T10:00:00Z", "2026-01-01T10:00:00.1Z", "2026-01-01T10:00:00+00:00"])
colliding = st.one_of(
    st.builds(
        lambda session, kind, at: event(session_id=session, event_type=kind, timestamp=at), short_texts, short_texts, moments
    ),
    st.builds(lambda parts, at: event(event_id="".join(parts) + at), st.lists(short_texts, min_size=1, max_size=2), moments),
)
tenants = st.sampled_from(["a", "a1", "a12", "a2"])


def expected_identity(tenant: str, sent_event: Event) -> tuple[str | None, ...]:
    return (
        (tenant, sent_event.event_id)
        if sent_event.event_id
        else (tenant, sent_event.session_id, sent_event.event_type, sent_event.timestamp)
    )


@given(st.lists(st.tuples(tenants, colliding), min_size=2, max_size=30))
@example([("a", event(session_id="1", event_type="2")), ("a1", event(session_id="2", event_type="2"))])
@example([("a", event(session_id="1", event_type="12")), ("a", event(session_id="11", event_type="2"))])
@example([("a", event(session_id="1", event_type="2")), ("a", event(event_id="122026-01-01T10:00:00Z"))])
def test_different_events_never_share_an_identity(sent: list[tuple[str, Event]]) -> None:
    events_of: dict[tuple[str, str, str], set[tuple[str | None, ...]]] = {}
    for tenant, sent_event in sent:
        events_of.setdefault((tenant, *event_identity(tenant, sent_event)), set()).add(expected_identity(tenant, sent_event))

    assert all(len(events) == 1 for events in events_of.values())
    assert len(events_of) == len({expected_identity(tenant, sent_event) for tenant, sent_event in sent})


# -- values and tables ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", REFUSED)
def test_a_value_that_a_table_cannot_hold_is_refused_with_a_reason(kind: str) -> None:
    with pytest.raises(Rejected) as refused:
        parse_event(with_member(REFUSED[kind]))

    assert refused.value.reason


@pytest.mark.parametrize("field", ["session_id", "event_type", "event_id"])
@pytest.mark.parametrize("value", [rb'"\u0000"', rb'"\ud800"', b'"\xff"', b'"\x00"'], ids=repr)
def test_an_id_that_a_table_cannot_hold_is_refused(field: str, value: bytes) -> None:
    members = {"session_id": b'"S"', "event_type": b'"t"', "timestamp": b'"2026-01-01T10:00:00Z"', field: value}

    with pytest.raises(Rejected):
        parse_event(b"{" + b",".join(b'"%s":%s' % (key.encode(), text) for key, text in members.items()) + b"}")


def test_a_repeated_member_is_refused_and_named() -> None:
    with pytest.raises(Rejected) as refused:
        parse_event(NAMED + b',"session_id":"S2"}')

    assert refused.value.field == "session_id"


def test_a_repeated_member_among_thousands_is_found_at_once() -> None:
    keys = [f"k{i:04}" for i in range(5_000)]
    raw = with_member(b"1," + ",".join(f'"{key}":1' for key in [*keys, keys[-1]]).encode())
    started = time.thread_time()

    for _ in range(8):
        with pytest.raises(Rejected) as refused:
            parse_event(raw)

    assert refused.value.field == keys[-1]
    assert time.thread_time() - started < 0.7


@pytest.mark.parametrize("kind", ACCEPTED)
def test_an_accepted_value_is_read_from_the_tables_unchanged(kind: str, tables: SqliteStore) -> None:
    parsed = parse_event(with_member(ACCEPTED[kind]))

    [row] = stored(tables, f"accepted-{list(ACCEPTED).index(kind)}", [parsed.body])

    assert json.loads(row["properties"]) == {"x": json.loads(ACCEPTED[kind])}
    assert (row["session_id"], row["timestamp_us"]) == (parsed.session_id, parsed.timestamp_us)
    assert parse_body(parsed.body) == parsed


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**66), 2**66)
    | st.sampled_from([2**63, 2**63 - 1, -(2**63), -(2**63) - 1, 2**64])
    | st.floats()
    | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)
own = st.fixed_dictionaries(
    {"session_id": st.text(min_size=1, max_size=8), "event_type": st.text(min_size=1, max_size=8), "timestamp": moments},
    optional={"event_id": st.none() | st.text(min_size=1, max_size=8)},
)


@given(own, st.dictionaries(st.text(max_size=3), anything, max_size=4), st.booleans())
def test_any_json_object_becomes_an_event_or_is_refused(own: Any, members: Any, escaped: bool) -> None:
    raw = json.dumps(members | own, ensure_ascii=escaped).encode(errors="surrogatepass")
    try:
        parsed = parse_event(raw)
    except Rejected as refused:
        assert refused.reason
        return

    assert parse_body(parsed.body) == parsed
    assert json.loads(parsed.properties) == {key: value for key, value in json.loads(raw).items() if key not in own}


@given(st.binary(max_size=60) | anything.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_become_an_event_or_are_refused(raw: bytes) -> None:
    with pytest.raises(Rejected):
        parse_event(raw)


@given(st.data())
def test_a_damaged_event_becomes_an_event_or_is_refused(data: st.DataObject) -> None:
    raw = bytearray(body(page="\u00e9\u0000" if data.draw(st.booleans()) else "plain", deep=[{"a": 1.5}]))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        parsed = parse_event(bytes(raw))
    except Rejected:
        return

    assert parse_body(parsed.body) == parsed


def test_every_accepted_event_becomes_a_row(tables: SqliteStore) -> None:
    tenants_used = iter(range(10_000))

    @given(st.lists(st.tuples(own, st.dictionaries(st.text(max_size=3), anything, max_size=3)), min_size=1, max_size=4))
    def check(sent: list[tuple[Any, Any]]) -> None:
        accepted: dict[tuple[str, str], Event] = {}
        for own_members, members in sent:
            try:
                parsed = parse_event(json.dumps(members | own_members).encode())
            except Rejected:
                continue
            accepted.setdefault(event_identity("acme", parsed), parsed)

        rows = stored(tables, f"any-{next(tenants_used)}", [parsed.body for parsed in accepted.values()])

        assert [row["properties"] for row in rows] == [parsed.properties.decode() for parsed in accepted.values()]
        assert [row["session_id"] for row in rows] == [parsed.session_id for parsed in accepted.values()]

    check()


def test_json_that_is_no_event_can_be_decoded() -> None:
    assert decode_json(b"[1, 2]") == [1, 2]
    with pytest.raises(Rejected):
        decode_json(b"[" * 100_000)
