"""Figures, and the table of them."""

from collections.abc import Sequence
from statistics import median
from typing import Literal

import msgspec
from rich.table import Table

Kind = Literal["at least", "at most"]


class Figure(msgspec.Struct, frozen=True):
    """A line of the table: both medians in `unit`, the figure, its target."""

    what: str
    figure: float
    kind: Kind
    target: float
    ours: float | None = None
    reference: float | None = None
    unit: str = ""
    form: str = "{:.2f}"
    spread: tuple[float, float] | None = None
    remark: str = ""

    @property
    def met(self) -> bool:
        """Whether the figure meets its target."""
        return self.figure >= self.target if self.kind == "at least" else self.figure <= self.target


def ratio_of(
    what: str, ours: Sequence[float], reference: Sequence[float], *, target: float, unit: str, remark: str = ""
) -> Figure:
    """The median ratio of the rounds; a round measures both sides."""
    ratios = [mine / other for mine, other in zip(ours, reference, strict=True)]
    return Figure(
        what=what,
        figure=median(ratios),
        kind="at least",
        target=target,
        ours=median(ours),
        reference=median(reference),
        unit=unit,
        spread=(min(ratios), max(ratios)),
        remark=remark,
    )


def table_of(figures: Sequence[Figure]) -> Table:
    """All figures, a line each."""
    table = Table("what", "ours", "reference", "figure", "target", "met?", "note")
    for column in table.columns[1:5]:
        column.justify = "right"
    for figure in figures:
        spread = f" ({figure.form.format(figure.spread[0])}–{figure.form.format(figure.spread[1])})" if figure.spread else ""
        sign = "≥" if figure.kind == "at least" else "≤"
        table.add_row(
            figure.what,
            _number(figure.ours, figure.unit),
            _number(figure.reference, figure.unit),
            figure.form.format(figure.figure) + spread,
            f"{sign} {figure.form.format(figure.target)}",
            "[green]yes[/]" if figure.met else "[red]no[/]",
            figure.remark,
        )
    return table


def _number(value: float | None, unit: str) -> str:
    return "–" if value is None else f"{value:,.0f} {unit}"
