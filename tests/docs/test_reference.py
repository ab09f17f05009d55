"""The reference is what the code says."""

import re
from pathlib import Path

import click
import msgspec
import pytest

from api.openapi.operations import CODES_OF_ALL, CODES_OF_MODE, CODES_OF_READS, CODES_OF_TENANTS, OPERATIONS
from projector.store.sqlite import SqliteStore
from streams import keys
from streams.runtime import Settings, load_settings
from tests.docs import generate
from tests.docs.settings_rows import rows_of_settings
from tests.support.documentation import HEADING, first_cells, rows, section, text_of
from tests.support.http import ROOT

PACKAGES = ("streams", "projector", "api")


def test_what_is_made_from_the_code_is_up_to_date() -> None:
    assert generate.stale() == [], "run `python -m tests.docs.generate`"


# -- settings ------------------------------------------------------------------------------------------------------------


def test_the_page_of_settings_gives_every_setting_with_its_default_and_range() -> None:
    documented = {row[0].strip("`"): (row[1], row[2]) for row in rows(text_of("reference/settings.md"))}

    assert documented == rows_of_settings()


def test_every_setting_is_documented_once() -> None:
    assert len(rows(text_of("reference/settings.md"))) == len(msgspec.structs.fields(Settings))


def examples() -> dict[str, str]:
    """The settings that .env.example shows, all of them commented out."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert all(line.startswith("#") or not line for line in lines)
    return {match[1]: match[2] for line in lines if (match := re.fullmatch(r"# ([A-Z_]+)=(.*)", line))}


def test_every_line_of_the_example_of_settings_may_be_used() -> None:
    for name, value in examples().items():
        auth = {"AUTH": "keys"} if name == "METRICS_TOKEN" else {}

        assert name in Settings.__struct_encode_fields__
        load_settings(auth | {name: value})


def test_the_example_of_settings_shows_defaults_where_there_are_some() -> None:
    defaults = {name: default.strip("`") for name, (default, _) in rows_of_settings().items()}
    differing = {name for name, value in examples().items() if defaults[name] not in (value, "none")}

    assert differing == {"AUTH"}


# -- commands ------------------------------------------------------------------------------------------------------------


def commands() -> set[str]:
    """Every command that does something by itself, without its groups."""
    return {name for name, command in generate.leaves() if not isinstance(command, click.Group)}


def test_every_command_that_a_page_names_exists() -> None:
    known = {name for name, _ in generate.leaves()}
    unknown = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for words in re.findall(r"penstock ((?:api|projector|streams)(?: [a-z]+)*)", page.read_text()):
            parts = words.split()
            command = " ".join(["penstock", *parts[:2]])
            deeper = " ".join(["penstock", *parts[:3]])
            is_group = any(name.startswith(f"{command} ") for name in known)
            if command not in known or (is_group and len(parts) > 2 and deeper not in known):
                unknown.append(f"{page.name}: penstock {words}")

    assert unknown == []


def test_the_procfile_starts_commands_that_there_are() -> None:
    started = {line.partition(":")[2].strip() for line in (ROOT / "Procfile").read_text().splitlines()}
    known = {name.replace("penstock", "python -m", 1) for name in commands()}

    assert started
    assert started <= known


# -- HTTP ----------------------------------------------------------------------------------------------------------------


def test_every_problem_code_of_an_operation_is_explained_with_its_status() -> None:
    used = {
        (status, code)
        for codes in (
            CODES_OF_ALL,
            CODES_OF_TENANTS,
            CODES_OF_READS,
            *CODES_OF_MODE.values(),
            *(operation.codes for operation in OPERATIONS.values()),
        )
        for status, names in codes.items()
        for code in names
    }

    assert used - documented_codes() == set()


def test_every_code_that_is_explained_is_used() -> None:
    source = "".join(path.read_text() for path in (ROOT / "api").rglob("*.py"))

    assert [code for _, code in sorted(documented_codes()) if f'"{code}"' not in source] == []


def documented_codes() -> set[tuple[int, str]]:
    """Status and code of every problem that the page explains."""
    return {(int(row[0]), row[1].strip("`")) for row in rows(text_of("reference/problem-codes.md")) if row[0].isdigit()}


def test_every_reason_not_to_be_ready_is_explained() -> None:
    source = "".join(path.read_text() for path in (ROOT / "api").rglob("*.py"))
    reasons = rows(section(text_of("reference/problem-codes.md"), "Readiness failures"))

    assert {row[0].strip("`") for row in reasons} == set(re.findall(r'Failure\(\s*"([a-z-]+)"', source))


# -- tables and keys -----------------------------------------------------------------------------------------------------


def test_the_page_of_tables_gives_every_column_with_its_type(tmp_path: Path) -> None:
    page = text_of("reference/tables.md")
    titles = [title.strip("`") for title in HEADING.findall(page) if title.startswith("`")]
    documented = {title: [(row[0].strip("`"), row[1]) for row in rows(section(page, f"`{title}`"))] for title in titles}

    with SqliteStore(str(tmp_path / "tables.db"), cache_mib=8) as store:
        names = [name for (name,) in store.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()]
        columns = {name: [row[1:3] for row in store.execute(f"PRAGMA table_xinfo({name})").fetchall()] for name in names}

    assert documented == columns


def test_the_page_of_redis_keys_gives_every_key_with_its_type() -> None:
    listed = re.findall(r"^(\{p\}:\S+) +(\w+)", keys.__doc__ or "", re.MULTILINE)
    documented = [(row[0].strip("`"), row[1]) for row in rows(text_of("reference/redis-keys.md")) if row[0].startswith("`{p}")]

    assert documented == listed


@pytest.mark.parametrize(
    "name", ["log", "dedup", "suppressed", "usage", "archive_lease", "rewrite", "tenants", "deleted", "groups"]
)
def test_the_keys_of_a_tenant_are_named_as_the_page_says(name: str) -> None:
    acme = keys.keys_of("acme")
    key = str(getattr(acme, name)).replace(f"{{{acme.partition}}}", "{p}").replace("acme", "TENANT")

    assert any(cell.startswith(key) for cell in first_cells("reference/redis-keys.md", r"\{p\}:.*"))
