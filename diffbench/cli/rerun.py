"""diffbench rerun"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffbench.cli.common import JSON, PLUGIN, UserPath
from diffbench.cli.output import say, say_data

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diffbench.results.reproduced import Rerun


@click.command()
@click.argument("run", type=UserPath(path_type=Path))
@click.argument("row")
@click.option("--keep", type=UserPath(path_type=Path), metavar="FOLDER",
              help="Keep results and store of the repetition in this new folder.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads, instead of as many as then.")
@click.option("--data-root", type=UserPath(file_okay=False), help="Where data sets lie; sets DIFFBENCH_DATA.")
@PLUGIN
@JSON
def command(run: Path, row: str, keep: Path | None, threads: int | None, data_root: str | None,
            plugins: tuple[str, ...], as_json: bool) -> None:
    """Make one row of a run again from nothing, and say whether it is the same.

    ROW is a cell id or its beginning, or conditions such as scheduler=ddim,steps=50 that mean one row. Exit code 0
    where the numbers agree, to the bit, or, where something differs that may change bits, within half of each number's
    95 % interval; 1 where they do not; 2 where the request was wrong.
    """
    import os

    from diffbench.api.rerunning import rerun
    from diffbench.cli.display import Display

    if data_root:
        os.environ["DIFFBENCH_DATA"] = str(Path(data_root).resolve())
    displays: list[Display] = []

    def watch(plan: Any) -> list[Display]:
        displays.append(Display(plan.needed(), f"rerun {plan.cells[0].cell_id}"))
        displays[0].begin()
        return displays

    try:
        result = rerun(run, row, keep=keep, threads=threads, plugins=plugins, watch=watch)
    finally:
        for display in displays:
            display.end()
    if as_json:
        say_data(result.as_json(), allow_nan=False)
    else:
        say("\n".join(_lines(result)))
    if not result.agrees:
        click.get_current_context().exit(1)


def _lines(result: Rerun) -> Iterator[str]:
    from diffbench.report.layout import markdown
    from diffbench.results import speed_columns

    yield f"cell {result.cell_id} of {result.run}: {result.made_of}"
    yield f"made again from nothing in {result.seconds:.0f} s"
    yield from (f"note: {note}" for note in result.notes)
    if result.changes:
        yield f"not comparable to the bit: {'; '.join(map(str, result.changes))}"
    yield from (f"not comparable to the bit: {reason}" for reason in result.stages_changed)
    same = [a.stage for a in result.artefacts if a.is_equal]
    if same:
        yield "same bits: " + ", ".join(f"{same.count(stage)} {stage}" for stage in dict.fromkeys(same))
    yield from (f"other bits: {a.stage} {a.label}: {a.said}" for a in result.artefacts if a.is_equal is False)
    unseen = {a.said: [b.stage for b in result.artefacts if b.is_equal is None and b.said == a.said]
              for a in result.artefacts if a.is_equal is None}
    yield from (f"not compared: {', '.join(dict.fromkeys(stages))}: {reason}" for reason, stages in unseen.items())
    different = [n for n in result.numbers if not n.is_equal]
    if result.numbers:
        yield f"numbers: {len(result.numbers) - len(different)} of {len(result.numbers)} are the same to the bit"
    if different:
        body = [[n.column, _short(n.then), _short(n.now), "" if n.difference is None else f"{n.difference:+.3g}",
                 "" if not n.half_width or n.difference is None else f"{abs(n.difference) / n.half_width:.3g}",
                 {True: "", False: "no", None: "not judged: no interval"}[n.is_within]] for n in different]
        yield "\n" + markdown(["column", "then", "now", "difference", "of half its 95 % interval", "agrees"],
                              body) + "\n"
    body = [[c.column, f"{c.then:.4g}", f"{c.now:.4g}", f"{c.ratio:.3f}"] for c in result.clocks
            if c.column in speed_columns.BETTER]
    if body:
        yield "\n" + markdown(["clock", "then", "now", "now / then"], body) + "\n"
    yield from (f"disagrees: {reason}" for reason in result.disagreements)
    if result.is_bitwise:
        yield ("the same to the bit" if all(a.is_equal for a in result.artefacts)
               else "every number is the same to the bit")
    else:
        yield "agrees within its intervals" if result.agrees else "NOT the same"


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
