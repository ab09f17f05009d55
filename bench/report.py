"""What a figure comes to, and the table of all of them."""

from collections.abc import Sequence
from statistics import median
from typing import Literal

import msgspec
from rich.table import Table

Kind = Literal["at least", "at most"]


class Figure(msgspec.Struct, frozen=True):
    """One line: what was measured, the medians of both sides in `unit`, the figure and what it should be."""

    what: str
    figure: float
    kind: Kind
    target: float
    ours: float | None = None
    reference: float | None = None
    unit: str = ""
    form: str = "{:.2f}"
    spread: tuple[float, float] | None = None
    control_record: str = ""

    @property
    def met(self) -> bool:
        """Whether the figure is what it should be."""
        return self.figure >= self.target if self.kind == "at least" else self.figure <= self.target


def ratio_of(
    what: str, ours: Sequence[float], reference: Sequence[float], *, target: float, unit: str, control_record: str = ""
) -> Figure:
    """The median of the rounds' ratios: both sides of a round meet the same machine."""
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
        control_record=control_record,
    )


def table_of(figures: Sequence[Figure]) -> Table:
    """All figures, a line each."""
    table = Table("what", "ours", "reference", "figure", "target", "met?", "note")
    for column in table.columns[1:5]:
        column.justify = "right"
    for one in figures:
        spread = f" ({one.form.format(one.spread[0])}–{one.form.format(one.spread[1])})" if one.spread else ""
        sign = "≥" if one.kind == "at least" else "≤"
        table.add_row(
            one.what,
            _number(one.ours, one.unit),
            _number(one.reference, one.unit),
            one.form.format(one.figure) + spread,
            f"{sign} {one.form.format(one.target)}",
            "[green]yes[/]" if one.met else "[red]no[/]",
            one.control_record,
        )
    return table


def _number(value: float | None, unit: str) -> str:
    return "–" if value is None else f"{value:,.0f} {unit}"
