"""The index leads to every page, and every link resolves."""

import re
from pathlib import Path

import pytest

from tests.support.documentation import DOCS, anchors, links, pages
from tests.support.http import ROOT

OUTSIDE = re.compile(r"[a-z]+:")
MARKDOWN = [path.relative_to(ROOT).as_posix() for path in pages()]


def target_of(page: Path, link: str) -> tuple[Path, str]:
    """The file and the anchor that a link of a page leads to."""
    file, _, anchor = link.partition("#")
    return (page.parent / file).resolve() if file else page, anchor


def test_the_index_leads_to_every_page() -> None:
    reached: set[Path] = set()
    waiting = [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            waiting += [file for file, _ in (target_of(page, link) for link in links(page.read_text())) if file.suffix == ".md"]

    assert set(DOCS.rglob("*.md")) - reached == set()


def test_the_index_itself_links_every_page() -> None:
    index = DOCS / "index.md"

    linked = {target_of(index, link)[0] for link in links(index.read_text())}

    assert set(DOCS.rglob("*.md")) - linked == {index}


@pytest.mark.parametrize("name", MARKDOWN)
def test_every_relative_link_and_anchor_resolves(name: str) -> None:
    page = ROOT / name
    broken = []
    for link in links(page.read_text()):
        if OUTSIDE.match(link):
            continue
        file, anchor = target_of(page, link)
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            broken.append(link)

    assert broken == []


@pytest.mark.parametrize("name", [name for name in MARKDOWN if name.startswith("docs/")])
def test_a_page_links_nothing_outside_of_the_folder_that_becomes_the_site(name: str) -> None:
    page = ROOT / name
    relative = [link for link in links(page.read_text()) if not OUTSIDE.match(link)]

    assert [link for link in relative if not target_of(page, link)[0].is_relative_to(DOCS)] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("name", MARKDOWN)
def test_every_test_file_that_a_page_names_exists(name: str) -> None:
    named = re.findall(r"`(tests/[\w/.]+)`", (ROOT / name).read_text())

    assert [path for path in named if not (ROOT / path).exists()] == []
