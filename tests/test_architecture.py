"""The house is as its plan says: arrows point one way, doors are narrow, and what is documented is what there is."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest

import api
from streams import Settings
from tests.support.http import ROOT
from tests.support.readme import first_cells

ROOMS = ("streams", "projector", "api")  # each may import from those before it
COMMANDS = ("api", "projector", "streams")


def modules(room: str) -> list[Path]:
    """A room's files."""
    found = sorted((ROOT / room).rglob("*.py"))
    assert found
    return found


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """What a file imports of ours: (module, name), the name empty for a whole module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            yield from ((node.module or "", alias.name) for alias in node.names)


def room_of(module: str) -> str:
    return module.partition(".")[0]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_the_rooms_before_it(room: str) -> None:
    later = ROOMS[ROOMS.index(room) + 1 :]

    wrong = [f"{path.name}: {module}" for path in modules(room) for module, _ in imported(path) if room_of(module) in later]

    assert wrong == []


@pytest.mark.parametrize("room", ROOMS)
def test_what_stands_in_a_door_is_there(room: str) -> None:
    door = importlib.import_module(room)

    assert [name for name in door.__all__ if not hasattr(door, name)] == []
    assert sorted(door.__all__) == sorted(set(door.__all__))


@pytest.mark.parametrize("room", ROOMS)
def test_every_file_says_first_what_it_is_for(room: str) -> None:
    silent = [path.name for path in modules(room) if not ast.get_docstring(ast.parse(path.read_text()))]
    silent += [path.name for path in sorted((ROOT / room).rglob("*.lua")) if not path.read_text().startswith("-- ")]

    assert silent == []


def test_no_test_file_imports_from_another() -> None:
    files = sorted((ROOT / "tests").rglob("*.py"))
    wrong = [
        f"{path.relative_to(ROOT)}: {module}"
        for path in files
        for module, name in imported(path)
        if module.startswith("tests.") and any(part.startswith("test_") for part in (*module.split("."), name))
    ]

    assert files
    assert wrong == [], "what several test files need belongs to tests/support/"


# -- what is documented ------------------------------------------------------------------------------------------------


def commands() -> Iterator[str]:
    """Every command there is, as one types it."""
    for package in COMMANDS:
        main = importlib.import_module(f"{package}.__main__").main
        if isinstance(main, click.Group):
            yield from (f"python -m {package} {name}" for name in main.commands)
        else:
            yield f"python -m {package}"


def test_the_readme_lists_every_setting_and_no_other() -> None:
    assert first_cells(r"[A-Z][A-Z0-9_]+") == {field.encode_name for field in msgspec.structs.fields(Settings)}


def test_the_readme_lists_every_route_and_no_other() -> None:
    routes = {
        f"{method} {re.sub(r':[a-z]+}', '}', route.path)}"
        for route in api.ROUTES
        for method in (route.methods or ())
        if method != "HEAD" and route.include_in_schema
    }

    assert first_cells(r"(GET|POST|PUT|PATCH|DELETE) /.*") == routes


def test_the_readme_lists_every_command_and_no_other() -> None:
    documented = first_cells(r"python -m .*")

    assert documented == set(commands())


def test_the_procfile_starts_commands_that_there_are() -> None:
    started = {line.partition(":")[2].strip() for line in (ROOT / "Procfile").read_text().splitlines()}

    assert started
    assert started <= set(commands())
