"""The documentation as data: its pages, their tables, headings and links."""

import re
from pathlib import Path
from typing import NamedTuple

from tests.support.http import ROOT

DOCS = ROOT / "docs"
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
CELL = re.compile(r"(?<!\\)\|")


class Block(NamedTuple):
    """A fenced block: its language and its text, not indented."""

    language: str
    text: str


def pages() -> list[Path]:
    """Every page of docs/, and the Markdown files at the root."""
    return [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]


def text_of(name: str) -> str:
    """A page of docs/, such as `reference/settings.md`."""
    return (DOCS / name).read_text()


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page."""
    return [Block(language, re.sub(f"^{indent}", "", body, flags=re.MULTILINE)) for indent, language, body in FENCE.findall(text)]


def prose(text: str) -> str:
    """A page without fenced blocks and code spans, which hold no Markdown."""
    return CODE.sub("``", FENCE.sub("", text))


def links(text: str) -> list[str]:
    """The targets of a page's links."""
    return LINK.findall(prose(text))


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as forges and the site make them."""
    return {slug(heading) for heading in HEADING.findall(FENCE.sub("", text))}


def slug(heading: str) -> str:
    """The anchor of a heading.

    Lower case, hyphens for spaces, no punctuation.
    """
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def rows(text: str) -> list[list[str]]:
    """The rows of all tables of a page, cell by cell, without headers."""
    lines = FENCE.sub("", text).splitlines()
    table_rows = []
    for number, line in enumerate(lines):
        is_header = number + 1 < len(lines) and re.fullmatch(r"\|[-| ]+\|", lines[number + 1])
        if line.startswith("|") and not re.fullmatch(r"\|[-| ]+\|", line) and not is_header:
            table_rows.append([cell.strip() for cell in CELL.split(line)[1:-1]])
    return table_rows


def first_cells(page: str, pattern: str) -> set[str]:
    """First cells of a page's tables: those that are code and match."""
    cells = {row[0].strip("`") for row in rows(text_of(page)) if row[0].startswith("`")}
    return {cell for cell in cells if re.fullmatch(pattern, cell)}


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next heading of its level."""
    level = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    assert level, f"there is no heading {heading!r}"
    below = text[level.end() :]
    end = re.search(rf"^#{{1,{len(level[1])}}} ", below, re.MULTILINE)
    return below[: end.start()] if end else below


def generated(text: str, name: str) -> str:
    """What stands between the marks of a generated part."""
    return _between_marks(text, name)[1]


def with_generated(text: str, name: str, content: str) -> str:
    """The page with the generated part replaced."""
    before, _, after = _between_marks(text, name)
    return before + content + after


def _between_marks(text: str, name: str) -> tuple[str, str, str]:
    before, opening, below = text.partition(f"<!-- generated: {name} -->\n\n")
    content, closing, after = below.partition("<!-- end -->")
    assert opening and closing, f"there is no generated part {name}"
    return before + opening, content, closing + after
