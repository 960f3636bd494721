"""diffbench compare"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffbench.cli.common import JSON, UserPath
from diffbench.cli.output import say, say_data

if TYPE_CHECKING:
    from diffbench.results.comparing import Comparison, Difference


@click.command()
@click.argument("run", type=UserPath(path_type=Path))
@click.argument("a")
@click.argument("b", required=False)
@click.option("--metric", "metrics", multiple=True, metavar="COLUMN",
              help="Compare this column alone; may be repeated.")
@JSON
def command(run: Path, a: str, b: str | None, metrics: tuple[str, ...], as_json: bool) -> None:
    """Compare B against A, seed by seed, with intervals.

    \b
    diffbench compare RUN A B        two sides of one run; a side is a cell id or its beginning, or conditions such as
    scheduler=ddim,steps=50 diffbench compare RUN OTHER      all cells that two runs have in common: OTHER against RUN

    Two rows are paired that agree in everything but what is compared. Exit code 1 where B is significantly worse in any
    column of quality (p < 0.05 over all columns compared), 2 where the two sides cannot be compared.
    """
    from diffbench.results import comparing

    first = comparing.ComparedRun(run)
    comparison = (comparing.compare(first, a, b, only=metrics) if b is not None
                  else comparing.compare_runs(first, comparing.ComparedRun(a), only=metrics))
    if as_json:
        say_data(comparison.as_json())
    else:
        for line in _lines(comparison):
            say(line)
    if any(d.is_worse for d in comparison.differences):
        click.get_current_context().exit(1)


def _lines(comparison: Comparison) -> list[str]:
    from diffbench.report.layout import markdown

    lines = [f"A: {comparison.a}", f"B: {comparison.b}", f"{comparison.pairs} pairs of rows", *comparison.notes]
    if comparison.differences:
        body = [
            [d.quantity.name, f"{d.a:.4g}", f"{d.b:.4g}", f"{d.estimate.debiased:+.3g}", *_sure(d), d.verdict]
            for d in comparison.differences
        ]
        bases = "; ".join(dict.fromkeys(d.estimate.basis for d in comparison.differences))
        lines += ["", markdown(["column", "A", "B", "B - A", "95 % of B - A", "p", "resolvable", "verdict"], body), "",
                  f"Intervals of B - A by {bases}.",
                  f"p is Holm's, over {len(comparison.differences)} columns; resolvable: the true difference that 80 "
                  "of 100 such comparisons find, each alone."]
        biased = [
            [d.quantity.conventional, *(f"{value:.4g}" for value in d.conventional)]
            for d in comparison.differences
            if d.conventional
        ]
        if biased:
            lines += ["", markdown(["as published elsewhere, not compared", "A", "B"], biased)]
    if comparison.ratios:
        body = [[r.column, f"{r.a:.4g}", f"{r.b:.4g}", f"{r.ratio:.3f}", "noisy" if r.is_noisy else ""]
                for r in comparison.ratios]
        lines += ["", markdown(["cost", "A", "B", "B / A", ""], body), "",
                  "Costs have no p: laps of one process do not tell what another start of it would give."]
    return lines


def _sure(d: Difference) -> list[str]:
    e = d.estimate
    return ["", "", ""] if math.isnan(d.p) else [f"{e.low:+.3g} to {e.high:+.3g}", f"{d.p:.2g}", f"{e.resolvable:.2g}"]
