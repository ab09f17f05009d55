"""python -m bench: measure, and print each figure beside its target."""

import os
import platform
import time

import click
from rich.console import Console

from bench.archive import archive, leaving, reread, segment
from bench.flood import flood
from bench.footprint import idle, memory
from bench.foreign import foreign
from bench.formats import formats
from bench.ingest import batch, single
from bench.latency import latency
from bench.long import long
from bench.report import table_of
from bench.scale import scale
from bench.system import end_on_signals
from bench.tables import drain, rebuild

PLAIN_WIDTH = 160
MEASURES = (
    single,
    batch,
    drain,
    rebuild,
    latency,
    flood,
    memory,
    idle,
    archive,
    segment,
    reread,
    leaving,
    long,
    scale,
    foreign,
    formats,
)
FIGURES = {measure.__name__: measure for measure in MEASURES}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(FIGURES)), metavar="[NAME]...")
@click.option("--quick", is_flag=True, help="Few short rounds: a trial, not for quotation.")
@click.option("--list", "only_list", is_flag=True, help="Print the names of the figures.")
def main(names: tuple[str, ...], quick: bool, only_list: bool) -> None:
    """Measure the figures called NAME, or all of them.

    Every figure starts the real processes in a temporary directory, measures both sides in turn, and takes medians. The
    rates depend on the machine, the ratios hardly. Run nothing else meanwhile.
    """
    if only_list:
        for name, measure in FIGURES.items():
            print(f"{name:8}  {(measure.__doc__ or '').partition(chr(10))[0]}")
        return
    end_on_signals()
    began = time.monotonic()
    figures = []
    for name in names or FIGURES:
        figures += FIGURES[name](lambda line: print(line, flush=True), quick=quick)
    console = Console() if Console().is_terminal else Console(width=PLAIN_WIDTH)
    console.print(table_of(figures))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    version = platform.python_version()
    mode = "quick; " if quick else ""
    console.print(f"{mode}{os.cpu_count()} processors, Python {version}, {time.monotonic() - began:.0f} s, load {load}")


if __name__ == "__main__":
    main()
