"""The tested versions are installed, and a wheel is complete."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.http import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = [text for texts in PROJECT["optional-dependencies"].values() for text in texts]
DIRECT = [Requirement(text) for text in (*PROJECT["dependencies"], *EXTRAS)]


def pins() -> dict[str, str]:
    """The constraints file: the version of each package."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    matches = [re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)(?: *; *.+)?", line) for line in lines]
    assert all(matches), "a line is no `name==version`"
    return {canonicalize_name(match[1]): match[2] for match in matches if match}


def test_the_constraints_name_no_address() -> None:
    text = (ROOT / "constraints.txt").read_text()

    assert not re.search(r"://|@|^-|\bfile:", text, re.MULTILINE)
    assert "penstock" not in pins()


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda requirement: requirement.name)
def test_a_direct_dependency_is_pinned_within_its_bounds(requirement: Requirement) -> None:
    version = pins()[canonicalize_name(requirement.name)]

    assert requirement.specifier.contains(version, prereleases=True)
    assert {bound.operator for bound in requirement.specifier} == {">=", "<"}, "a dependency has a lower and an upper bound"


def test_a_wheel_holds_the_scripts_and_the_types(tmp_path: Path) -> None:
    built = tmp_path / "source"
    built.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "streams", "projector", "api"):
        (built / name).symlink_to(ROOT / name)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(built)],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    [wheel] = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())

    scripts = {str(path.relative_to(ROOT)) for path in (ROOT / "streams" / "scripts").glob("*.lua")}
    typed = {f"{package}/py.typed" for package in ("streams", "projector", "api")}
    assert len(scripts) > 10
    assert scripts | typed <= held
    assert not [name for name in held if name.startswith(("tests/", "bench/"))]
