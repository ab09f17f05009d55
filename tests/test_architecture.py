"""The packages are as docs/explanation/architecture.md says: arrows point one way, and `__all__` names what is there."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.mutants import MUTANTS
from tests.support.http import ROOT

PACKAGES = ("streams", "projector", "api")  # each may import from those before it


def modules(package: str) -> list[Path]:
    """A package's files."""
    paths = sorted((ROOT / package).rglob("*.py"))
    assert paths
    return paths


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """What a file imports: (module, name), the name empty for a whole module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            yield from ((node.module or "", alias.name) for alias in node.names)


def package_of(module: str) -> str:
    return module.partition(".")[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_from_the_packages_before_it(package: str) -> None:
    later = PACKAGES[PACKAGES.index(package) + 1 :]

    wrong = [f"{path.name}: {module}" for path in modules(package) for module, _ in imported(path) if package_of(module) in later]

    assert wrong == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_imports_from_tests_or_benches(package: str) -> None:
    wrong = [
        f"{path.name}: {module}"
        for path in modules(package)
        for module, _ in imported(path)
        if package_of(module) in ("tests", "bench")
    ]

    assert wrong == []


@pytest.mark.parametrize("package", PACKAGES)
def test_what_a_package_names_for_others_is_there(package: str) -> None:
    module = importlib.import_module(package)

    assert [name for name in module.__all__ if not hasattr(module, name)] == []
    assert sorted(module.__all__) == sorted(set(module.__all__))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_says_first_what_it_is_for(package: str) -> None:
    silent = [path.name for path in modules(package) if not ast.get_docstring(ast.parse(path.read_text()))]
    silent += [path.name for path in sorted((ROOT / package).rglob("*.lua")) if not path.read_text().startswith("-- ")]

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


def test_every_planted_mistake_stands_where_the_code_is() -> None:
    edits = [(file, text) for mutant in MUTANTS for file, text, _ in mutant.edits]

    assert edits
    assert [edit for edit in edits if (ROOT / edit[0]).read_text().count(edit[1]) != 1] == [], "see tests/faults/mutants.py"
