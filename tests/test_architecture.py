"""The packages are as docs/explanation/architecture.md says."""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import TypeGuard

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


def module_name(path: Path) -> str:
    """The name by which a file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for package in PACKAGES for path in modules(package)}


def public_names(module: str) -> set[str]:
    """The names that a package, folder or offered module offers.

    Those of a package or folder are its `__all__` and its folders, those of a module all without an underscore.
    """
    if is_folder(module):
        folders = {name.rpartition(".")[2] for name in MODULES if name.rpartition(".")[0] == module and is_folder(name)}
        return set(getattr(importlib.import_module(module), "__all__", ())) | folders
    folder, _, name = module.rpartition(".")
    if not is_folder(folder) or name not in public_names(folder):
        return set()
    return {name for name in dir(importlib.import_module(module)) if not name.startswith("_")}


def is_folder(module: str) -> bool:
    return module in MODULES and MODULES[module].name == "__init__.py"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_of_another_only_what_it_offers(package: str) -> None:
    """Offered is what `__all__` names, of the other package, of one of its folders, or of a module that the package names."""
    wrong = [
        f"{path.relative_to(ROOT)}: {module}.{name}"
        for path in modules(package)
        for module, name in imported(path)
        if package_of(module) in PACKAGES and package_of(module) != package and name not in public_names(module)
    ]

    assert wrong == []


def dependencies(name: str) -> set[str]:
    """The modules of ours that must be loaded for a module, also those that it imports late or for its types only.

    To import a module runs the `__init__` of each folder above it. The folders that the importing module stands in, too, are
    left out: they are being loaded already.
    """
    needed: set[str] = set()
    for module, member in imported(MODULES[name]):
        target = f"{module}.{member}" if f"{module}.{member}" in MODULES else module
        parts = target.split(".")
        needed |= {parent for end in range(1, len(parts)) if not is_above(parent := ".".join(parts[:end]), name)}
        needed.add(target)
    return needed & MODULES.keys()


def is_above(folder: str, module: str) -> bool:
    return module == folder or module.startswith(f"{folder}.")


def test_no_module_needs_itself() -> None:
    graph = {name: dependencies(name) - {name} for name in MODULES}

    assert list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the cycle


def test_click_is_imported_only_for_commands() -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for path in MODULES.values()
        if "commands" not in path.parts and any(package_of(module) == "click" for module, _ in imported(path))
    ]

    assert wrong == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_has_more_than_300_lines(package: str) -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules(package)}

    assert {path: length for path, length in lengths.items() if length > 300} == {}


def started_modules(path: Path) -> Iterator[str]:
    """The modules that a file starts as a process of their own: what follows "-m" in a list or in the arguments of a call."""
    for node in ast.walk(ast.parse(path.read_text())):
        parts = node.args if isinstance(node, ast.Call) else node.elts if isinstance(node, ast.List | ast.Tuple) else []
        texts = [part.value if isinstance(part, ast.Constant) else None for part in parts]
        yield from (str(module) for option, module in pairwise(texts) if option == "-m")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_starts_no_process_of_a_later_package(package: str) -> None:
    later = PACKAGES[PACKAGES.index(package) + 1 :]

    wrong = [f"{path.name}: {name}" for path in modules(package) for name in started_modules(path) if package_of(name) in later]

    assert wrong == []


SQL = re.compile(r"\b(SELECT|INSERT INTO|INSERT OR IGNORE|DELETE FROM|PRAGMA|CREATE (TABLE|INDEX))\b|\bUPDATE\b.+\bSET\b")
STORE = "projector/store"
OF_ENGINES = {"SqliteStore", "SqliteFile", "pysqlite3", "sqlite3", "sqlite_utils"}


def code_texts(path: Path) -> Iterator[str]:
    """The string literals of a file that are no docstrings."""
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, documented) and is_text(node.body[0])}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def is_text(statement: ast.stmt) -> TypeGuard[ast.Expr]:
    return (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)
    )


def outside_the_store() -> Iterator[Path]:
    return (path for path in MODULES.values() if not path.relative_to(ROOT).is_relative_to(STORE))


def test_sql_stands_only_in_the_store() -> None:
    assert any(SQL.search(text) for text in code_texts(ROOT / STORE / "sqlite" / "queries.py"))
    assert [f"{path.name}: {text[:60]}" for path in outside_the_store() for text in code_texts(path) if SQL.search(text)] == []


def test_engines_are_named_only_in_the_store() -> None:
    named = [
        f"{path.relative_to(ROOT)}: {node.id if isinstance(node, ast.Name) else node.name}"
        for path in outside_the_store()
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Name) and node.id in OF_ENGINES) or (isinstance(node, ast.alias) and node.name in OF_ENGINES)
    ]
    imports = [
        f"{path.relative_to(ROOT)}: {module}"
        for path in outside_the_store()
        for module, name in imported(path)
        if module.startswith("projector.store.sqlite") or (module == "projector.store" and name == "sqlite")
    ]

    assert named + imports == []


def test_no_module_is_longer_than_300_lines() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in MODULES.values()}

    assert {path: lines for path, lines in lengths.items() if lines > 300} == {}


def test_every_folder_says_first_what_it_holds() -> None:
    folders = {path.parent for path in MODULES.values()}

    assert sorted(str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").exists()) == []


def test_a_process_that_uses_no_archive_does_not_load_pyarrow() -> None:
    code = "import sys, api, projector, streams; sys.exit('pyarrow' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


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
