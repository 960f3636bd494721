"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

MATRIX = click.argument("matrix", type=click.Path(dir_okay=False))
PLUGIN = click.option("--plugin", "plugins", multiple=True, metavar="FILE.py", help="A loose file whose @diffbench.register classes are added.")
JSON = click.option("--json", "as_json", is_flag=True, help="For programs.")


def matrix_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What decides the content of a plan."""
    for option in reversed((
        MATRIX,
        click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where to train and sample."),
        click.option("--set", "changes", multiple=True, metavar="PATH=VALUE", help="Change one value of the matrix, such as train.steps=100 or axes.seed=[0]."),
        click.option("--only", "only", multiple=True, metavar="AXIS=NAME",
                     help="Keep the cells with this value, such as scheduler=ddim; several must all hold."),
        click.option("--smoke", is_flag=True, help="Walk every code path in seconds: 2 training steps, the fewest sampler steps, 8 images."),
        click.option("--data-root", type=click.Path(file_okay=False), help="Where data sets lie; sets DIFFBENCH_DATA."),
        click.option("--max-cells", type=int, default=10_000, show_default=True, help="Refuse a matrix with more cells."),
        PLUGIN,
    )):
        command = option(command)
    return command


def make_plan(matrix: str, device: str, changes: tuple[str, ...], only: tuple[str, ...], smoke: bool, data_root: str | None, max_cells: int,
              plugins: tuple[str, ...]) -> Any:
    """The plan these options ask for; problems of plug-ins are said, not raised."""
    import os
    from pathlib import Path

    from diffbench import api
    from diffbench.registry import load_registry

    if data_root:
        os.environ["DIFFBENCH_DATA"] = str(Path(data_root).resolve())
    registry = load_registry(plugins)
    plan = api.plan(matrix, device=device, changes=changes, smoke=smoke, max_cells=max_cells, registry=registry, only=only)
    for problem in registry.problems:
        click.echo(f"diffbench: {problem.message}", err=True)
    return plan
