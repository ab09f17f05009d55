"""The API does what /openapi.json documents, and documents what it does."""

import ast
import base64
import gzip
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import strategies as st
from openapi_spec_validator import validate
from schemathesis.checks import negative_data_rejection, positive_data_acceptance
from schemathesis.config import SchemathesisConfig

import api
from api.auth.credentials import KEY_ID_LENGTH, hash_of, new_key
from api.http.problems import ERRORS
from api.openapi.document import codes_of, operations_of
from api.openapi.operations import NDJSON, OPERATIONS, PROBLEMS
from projector import ApiKey
from projector.store.sqlite import SqliteStore
from streams import control, event_identity, keys_of, parse_event
from streams.runtime import load_settings
from tests.support.documentation import first_cells
from tests.support.events import body
from tests.support.http import ROOT, Api, App, opened, running, wait_until
from tests.support.servers import Server

EXAMPLES = 60  # random cases for each operation, beside the cases at every limit
SEED = 20260101
MODES = ("open", "keys")


def document(auth: str, **settings: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(api.create_app(load_settings({"AUTH": auth, **settings})).state.document)
    return made


def schema_of(auth: str) -> Any:
    """The document for schemathesis, strict about members.

    The real document allows unknown members, because clients must tolerate new ones.
    """
    strict = document(auth)
    for name, schema in strict["components"]["schemas"].items():
        if name not in ("Event", "WrappedEvent"):
            schema["additionalProperties"] = False
    config = SchemathesisConfig.from_dict(
        {
            "seed": SEED,
            "generation": {"max-examples": EXAMPLES, "with-security-parameters": False},
            "phases": {"stateful": {"enabled": False}},
            "checks": {
                "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "503"]},  # see no_other_503
                "negative_data_rejection": {
                    "expected-statuses": ["4xx", "503", "207"]
                },  # 207: a batch in which events are rejected
            },
        }
    )
    return schemathesis.openapi.from_dict(strict, config=config)


# -- the document ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("auth", MODES)
def test_the_document_is_valid_openapi(auth: str) -> None:
    validate(document(auth))


def test_the_document_the_routes_and_the_readme_agree() -> None:
    documented = {f"{method.upper()} {path}" for path, item in document("open")["paths"].items() for method in item}

    assert documented == {f"{method} {path}" for method, path in operations_of(api.ROUTES)}
    assert documented == set(OPERATIONS)
    assert documented == first_cells("reference/http-api.md", r"(GET|POST|PUT|PATCH|DELETE) /.*")


def raised_codes() -> set[tuple[int, str]]:
    """The status and code of every problem in the API's source."""
    codes = set(ERRORS.values()) | {(500, "internal-error")}
    for path in (ROOT / "api").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Problem", "self._refuse"):
                match node.args[:2]:
                    case [ast.Constant(int(status)), ast.Constant(str(code))]:
                        codes.add((status, code))
    return codes


def test_every_problem_of_an_operation_is_documented() -> None:
    named = {
        (status, code)
        for operation in OPERATIONS.values()
        for auth in MODES
        for status, codes in codes_of(operation, auth).items()
        for code in codes
    }
    of_no_operation = {(403, "origin-not-allowed"), (400, "invalid-request")}  # preflight; Rejected, which each route catches

    assert named == raised_codes() - of_no_operation
    assert {status for status, _ in named} == set(PROBLEMS)


def test_the_limits_in_the_document_are_those_in_force() -> None:
    made = document("open", MAX_REQUEST_EVENTS="77", MAX_EVENT_BYTES="7777", READ_WAIT_TIMEOUT_SECONDS="0.7")

    post = made["paths"]["/api/events"]["post"]
    assert post["requestBody"]["content"]["application/json"]["schema"]["anyOf"][2]["maxItems"] == 77
    assert "7777 bytes" in post["requestBody"]["description"]
    assert any("0.7 s" in parameter["description"] for parameter in made["paths"]["/api/events"]["get"]["parameters"])


@pytest.mark.parametrize(
    ("auth", "required", "schemes"), [("open", True, set()), ("keys", False, {"bearer", "basic", "writeKey"})]
)
def test_the_document_describes_authentication(auth: str, required: bool, schemes: set[str]) -> None:
    made = document(auth)

    assert set(made["components"].get("securitySchemes", {})) == schemes
    for key, operation in OPERATIONS.items():
        method, path = key.split()
        described = made["paths"][path][method.lower()]
        tenants = [one["required"] for one in described["parameters"] if one["name"] == "X-Tenant-ID"]
        assert tenants == ([required and not operation.is_foreign] if operation.act else [])
        assert {name for choice in described.get("security", []) for name in choice} == (schemes if operation.act else set())


# -- real answers ------------------------------------------------------------------------------------------------------

STRICT = schema_of("open")


def assert_documented(path: str, answer: httpx.Response) -> None:
    """An answer has a documented status, body and headers."""
    operation = STRICT[path][answer.request.method]
    described = operation.definition.raw["responses"][str(answer.status_code)]
    assert answer.headers["content-type"] in described["content"]
    assert {name for name, header in described["headers"].items() if header["required"]} <= {
        name.title().replace("Www-", "WWW-") for name in answer.headers
    }
    operation.validate_response(answer)


@pytest.fixture
async def app(server: Server, tmp_path: Path) -> AsyncIterator[App]:
    async with opened(server, tmp_path, READ_WAIT_TIMEOUT_SECONDS=0.1) as app:
        yield app


@pytest.mark.anyio
async def test_every_receipt_is_as_documented(app: App) -> None:
    good, other, bad = json.loads(body()), json.loads(body(n=1)), {"session_id": "S1"}
    deep: Any = good | {"deep": json.loads("[" * 200 + "]" * 200)}
    sent: list[Any] = [good, good, other, bad, deep, good | {"x": "y" * 70_000}, b"{", b"", [good, other, bad], [bad], [good]]

    answers = [await app.post(one) for one in sent]

    assert [answer.status_code for answer in answers] == [202, 200, 409, 422, 422, 422, 400, 400, 207, 422, 200]
    for answer in answers:
        assert_documented("/api/events", answer)


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["session_id", "event_type", "event_id"])
async def test_a_name_may_be_as_long_as_the_document_says_and_no_longer(app: App, name: str) -> None:
    schema = document("open")["components"]["schemas"]["Event"]["properties"][name]
    longest = "x" * schema.get("anyOf", [schema])[0]["maxLength"]

    assert (await app.post(body(**{name: longest}))).status_code == 202
    assert (await app.post(body(**{name: longest + "x"}))).status_code == 422


@pytest.mark.anyio
async def test_every_row_and_outcome_is_as_documented(server: Server, app: App) -> None:
    for members in (
        {"n": 1},
        {"event_id": "e"},
        {"session_id": "S1", "event_type": "2x"},
        {"session_id": "S12", "event_type": "x"},
    ):
        name = (await app.post(body(**members))).json()["event_hash"]
    server.client.delete(*server.client.keys("*:dedup:*"))
    for members in ({"n": 2}, {"event_id": "e"}):
        await app.post(body(**members))
    server.client.xadd(keys_of("acme").log, {"event": "no json", "received_at_us": 1, "version": 1}, id="7-0")
    await app.project()
    for members in ({"session_id": "S1", "event_type": "2x"}, {"session_id": "S12", "event_type": "x"}):
        name = (await app.post(body(**members))).json()["event_hash"]

    outcomes = [await app.get(f"/api/receipts/{position}") for position in range(1, 11)]
    await control.append(app.log.connection, "acme", control.Drop([7]))
    await app.project()
    outcomes.append(await app.get("/api/receipts/7"))
    by_hash = await app.get("/api/receipts", event_hash=name)
    pages = {
        "/api/events": await app.get("/api/events", limit=2),
        "/api/sessions": await app.get("/api/sessions"),
        "/api/sessions/{session_id}": await app.get("/api/sessions/S1", limit=1),
        "/readyz": await app.get("/readyz"),
        "/healthz": await app.get("/healthz"),
    }

    assert [answer.json().get("status") for answer in outcomes] == [
        *["projected"] * 4, "quarantined", "late_duplicate", "quarantined", "queued", "queued", 404, "dropped"
    ]  # fmt: skip
    assert by_hash.json()["others"]
    assert {answer.status_code for answer in pages.values()} == {200}
    for answer in outcomes:
        assert_documented("/api/receipts/{position}", answer)
    for path, answer in {"/api/receipts": by_hash, **pages}.items():
        assert_documented(path, answer)
    for answer in (await app.get("/api/events", after=99), await app.get("/api/events", colour="red")):
        assert_documented("/api/events", answer)


# -- the process -------------------------------------------------------------------------------------------------------

NAMES = st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=9)
MOMENTS = st.datetimes().map(lambda moment: f"{moment.isoformat()}Z")
EVENT_TEXTS = st.fixed_dictionaries({"session_id": NAMES, "event_type": NAMES, "timestamp": MOMENTS}).map(json.dumps)
FORMATS = {  # values for the formats of this document
    "cursor": st.tuples(st.integers(-(2**62), 2**62), st.integers(1, 2**53)).map(
        lambda place: base64.urlsafe_b64encode(f"{place[0]}.{place[1]}".encode()).decode().rstrip("=")
    ),
    "payload": EVENT_TEXTS.map(lambda text: base64.b64encode(text.encode()).decode()),
    "ndjson": st.lists(EVENT_TEXTS, min_size=1, max_size=5).map("\n".join),
}
for name, strategy in FORMATS.items():
    schemathesis.openapi.format(name, strategy)

SENT = [json.loads(body(session_id=f"S{n % 3}", event_id=f"sent {n}", n=n)) for n in range(8)]
SENT_HASH = event_identity("acme", parse_event(json.dumps(SENT[0]).encode()))[0]
KNOWN = {"session_id": "S1", "position": 3, "key": "acme"}
PAST_THE_SCHEMA = ("NUL character", "64 bits", "nested deeper", "longer than 256 bytes", "years 1 and 9999 in UTC")


@schemathesis.serializer(NDJSON)
def as_lines(context: Any, value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


class Scene:
    """A running API with events of acme, and the headers to read them."""

    def __init__(self, api: Api, headers: dict[str, str]) -> None:
        self.api, self.headers = api, headers
        self.session = requests.Session()


def scene_of(auth: str, server: Server, folder: Path) -> Iterator[Scene]:
    server.client.flushall()
    key = new_key("admin")
    with SqliteStore(str(folder / "penstock.db"), cache_mib=8) as store:
        store.api_keys.add(ApiKey("acme", key[:KEY_ID_LENGTH], hash_of(key), "admin", "", 0))
    headers = {"Authorization": f"Bearer {key}"} if auth == "keys" else {}
    with running(server, folder, projector=True, AUTH=auth, READ_WAIT_TIMEOUT_SECONDS="0.02") as api:
        asking: Any = {"headers": headers | {"X-Tenant-ID": "acme"}, "timeout": 5}
        assert httpx.post(f"{api.url}/api/events", json=SENT, **asking).status_code == 202
        wait_until(lambda: httpx.get(f"{api.url}/api/events?after={len(SENT)}", **asking).status_code == 200, "it is read")
        yield Scene(api, headers)


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server("valkey", tmp_path_factory.mktemp("server")).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def open_scene(module_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    yield from scene_of("open", module_server, tmp_path_factory.mktemp("open"))


@pytest.fixture(scope="module")
def keys_scene(module_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    yield from scene_of("keys", module_server, tmp_path_factory.mktemp("keys"))


def no_other_503(context: Any, response: Any, case: Any) -> None:
    """A 503 of a healthy process means that a position is not projected yet."""
    assert response.status_code != 503 or response.json()["code"] == "not-yet-projected"


def past_the_schema(response: Any) -> bool:
    """Whether events were refused for reasons that no schema can express."""
    if response.status_code not in (400, 422):
        return False
    answer = response.json()
    refused = [receipt for receipt in answer.get("receipts", [answer]) if receipt["status"] != "conflict"]
    reasons = [receipt.get("reason") or receipt["detail"] for receipt in refused]
    return all(any(words in reason for words in PAST_THE_SCHEMA) for reason in reasons)


def tried(case: Any, scene: Scene) -> None:
    """Send a case and check its answer with every check of schemathesis.

    A valid case is sent again for existing data, an invalid case again without a credential. Left out are
    positive_data_acceptance where past_the_schema is true, negative_data_rejection for blank lines, which are an empty batch,
    and the checks of stateful runs.
    """
    _try(case, scene, scene.headers)
    if scene.headers and case.meta.generation.mode.is_negative:
        _try(case, scene, {})
    if case.meta.generation.mode.is_positive and case.operation.method.upper() == "GET":
        case.path_parameters.update({name: KNOWN[name] for name in case.path_parameters})
        if "X-Tenant-ID" in case.headers:
            case.headers["X-Tenant-ID"] = "acme"
        if "event_hash" in case.query:
            case.query["event_hash"] = SENT_HASH
        _try(case, scene, scene.headers)


def _try(case: Any, scene: Scene, headers: dict[str, str]) -> None:
    sent: dict[str, Any] = {"base_url": scene.api.url, "session": scene.session, "headers": headers}
    if case.meta.generation.mode.is_positive and case.headers.get("Content-Encoding") == "gzip":
        plain = case.as_transport_kwargs(base_url=scene.api.url)
        sent["data"] = gzip.compress(plain["data"] if "data" in plain else json.dumps(plain["json"]).encode())
    response = case.call(**sent)
    left_out = [positive_data_acceptance] if past_the_schema(response) else []
    if OPERATIONS[
        f"{case.operation.method.upper()} {case.operation.path}"
    ].is_foreign:  # their bodies are documented by the format's owner
        left_out += [positive_data_acceptance, negative_data_rejection]
    if case.media_type == NDJSON and not str(case.body).strip():
        left_out.append(negative_data_rejection)
    case.validate_response(response, additional_checks=[no_other_503], excluded_checks=left_out, transport_kwargs=sent)


@schema_of("open").parametrize()
def test_every_request_that_an_open_apis_document_allows_is_answered_as_documented(case: Any, open_scene: Scene) -> None:
    tried(case, open_scene)


@schema_of("keys").parametrize()
def test_every_request_that_a_closed_apis_document_allows_is_answered_as_documented(case: Any, keys_scene: Scene) -> None:
    tried(case, keys_scene)


def test_the_document_needs_no_credential(keys_scene: Scene) -> None:
    answer = httpx.get(f"{keys_scene.api.url}/openapi.json")

    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json()["paths"] == {**document("keys", READ_WAIT_TIMEOUT_SECONDS="0.02")["paths"]}
