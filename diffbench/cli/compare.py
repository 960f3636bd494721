"""diffbench compare"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffbench.cli.common import JSON

if TYPE_CHECKING:
    from diffbench.comparing import Comparison


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("a")
@click.argument("b", required=False)
@click.option("--metric", "metrics", multiple=True, metavar="COLUMN", help="Compare this column alone; may be repeated.")
@JSON
def command(run: Path, a: str, b: str | None, metrics: tuple[str, ...], as_json: bool) -> None:
    """Compare B against A, pair by pair, with intervals.

    \b
    diffbench compare RUN A B        two sides of one run; a side is a cell id or its beginning, or conditions such as scheduler=ddim,steps=50
    diffbench compare RUN OTHER      all cells that two runs have in common: OTHER against RUN

    A pair is two cells that agree in everything else, seed included. Exit code 1 where B is significantly worse in any column (p < 0.05, adjusted for
    the number of columns), 2 where the two sides cannot be compared.
    """
    from diffbench import comparing

    first = comparing.Run(run)
    found = comparing.compare(first, a, b, columns=metrics) if b is not None else comparing.compare_runs(first, comparing.Run(a), columns=metrics)
    if as_json:
        click.echo(json.dumps(_without_nan(found.as_json())))
    else:
        for line in _lines(found):
            click.echo(line)
    if any(d.is_worse for d in found.differences):
        click.get_current_context().exit(1)


def _lines(found: Comparison) -> list[str]:
    from diffbench.report.tables import markdown

    body = []
    for d in found.differences:
        verdict = "cannot tell" if math.isnan(d.p) or d.p >= 0.05 else "B is worse" if d.is_worse else "B is better"
        interval = "" if math.isnan(d.low) else f"{d.low:.3g} to {d.high:.3g}"
        body.append([d.column, f"{d.a:.4g}", f"{d.b:.4g}", f"{d.mean:+.3g}", interval, "" if math.isnan(d.p) else f"{d.p:.2g}",
                     "" if math.isnan(d.resolvable) else f"{d.resolvable:.2g}", verdict, d.how])
    table = markdown(["column", "A", "B", "B - A", "95 %", "p", "resolvable", "verdict", "by"], body)
    return [f"A: {found.a}", f"B: {found.b}", *found.notes, "", table, "",
            "resolvable: the smallest true difference that would be found in 80 % of such comparisons"]


def _without_nan(value):
    """NaN is no JSON: null."""
    if isinstance(value, dict):
        return {key: _without_nan(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
