"""The page on architecture names what is in the code."""

import ast
import re

from tests.support.documentation import section, text_of
from tests.support.http import ROOT

PAGE = "explanation/architecture.md"
STEP_LIMIT = 18


def steps() -> list[str]:
    """The steps of the path, such as `streams/append.py:Appender.append`."""
    return re.findall(r"^ *\d+\. `([^`]+)`", section(text_of(PAGE), "The path of one event"), re.MULTILINE)


def defined_in(file: str) -> set[str]:
    """The functions and methods of a Python file, by their qualified names."""
    tree = ast.parse((ROOT / file).read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    methods = {
        f"{node.name}.{method.name}"
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        for method in node.body
        if isinstance(method, functions)
    }
    return {node.name for node in tree.body if isinstance(node, functions)} | methods


def test_every_step_of_the_path_of_one_event_exists() -> None:
    missing = []
    for step in steps():
        file, _, name = step.partition(":")
        if not (ROOT / file).is_file() or (name and name not in defined_in(file)):
            missing.append(step)

    assert steps()
    assert missing == []


def test_one_event_passes_few_functions() -> None:
    assert len(steps()) <= STEP_LIMIT


def test_every_file_and_folder_that_the_page_names_exists() -> None:
    named = re.findall(r"`((?:streams|projector|api|tests)/[\w/.]*)`", text_of(PAGE))

    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_folder_of_a_package_is_on_the_page() -> None:
    page = text_of(PAGE)
    folders = {
        folder.relative_to(ROOT).as_posix()
        for package in ("streams", "projector", "api")
        for folder in (ROOT / package).iterdir()
        if (folder / "__init__.py").exists() and folder.name != "commands"
    }

    assert {folder for folder in folders if f"`{folder}/`" not in page} == set()
