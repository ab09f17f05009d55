"""The packages are as docs/explanation/architecture.md says: arrows point one way, and `__all__` names what is there."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.http import ROOT

ROOMS = ("streams", "projector", "api")  # each may import from those before it


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
