"""Options that several commands share."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any

import click

from diffbench.cli.output import say
from diffbench.store.paths import user_path


class UserPath(click.Path):
    """A path as users write it: `--out=~/x` too, where the shell leaves the `~` as it is."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(os.fspath(user_path(value)), param, ctx)


class Duration(click.ParamType):
    """A duration, as seconds."""

    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from diffbench.matrix.durations import seconds

        try:
            length = value if isinstance(value, float) else seconds(value)
        except ValueError:
            length = 0.0
        if length <= 0:
            self.fail(f"write a duration such as 90s, 10m or 3h, got {value!r}", param, ctx)
        return length


MATRIX = click.argument("matrix", type=UserPath(dir_okay=False))
PLUGIN = click.option("--plugin", "plugins", multiple=True, metavar="FILE.py", type=UserPath(dir_okay=False),
                      help="A loose file whose @diffbench.register classes are added.")
JSON = click.option("--json", "as_json", is_flag=True, help="For programs.")


def matrix_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Argument and options that decide the content of a plan."""
    for option in reversed((
        MATRIX,
        click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]",
                     help="Where to train and sample."),
        click.option("--set", "changes", multiple=True, metavar="PATH=VALUE",
                     help="Change one value of the matrix, such as train.steps=100 or axes.seed=[0]."),
        click.option("--only", "only", multiple=True, metavar="KEY=VALUE",
                     help="Keep the cells with this value, such as scheduler=ddim or scheduler=ddim,steps=[10, 50]; "
                          "several must all hold."),
        click.option("--smoke", is_flag=True, help="Walk every code path in seconds: 2 training steps, the fewest "
                                                   "sampler steps, 8 images."),
        click.option("--data-root", type=UserPath(file_okay=False), help="Where data sets lie; sets DIFFBENCH_DATA."),
        click.option("--max-cells", type=int, default=10_000, show_default=True,
                     help="Refuse a matrix with more cells."),
        PLUGIN,
    )):
        command = option(command)
    return command


def make_plan(matrix: str, device: str, changes: tuple[str, ...], only: tuple[str, ...], smoke: bool,
              data_root: str | None, max_cells: int,
              plugins: tuple[str, ...]) -> Any:
    """The plan these options ask for; problems of plug-ins are said, not raised."""
    from pathlib import Path

    import torch  # noqa: F401  before any plug-in, so that what one changes in it can be told

    from diffbench.api import running
    from diffbench.registry.registry import load_registry

    if data_root:
        os.environ["DIFFBENCH_DATA"] = str(Path(data_root).resolve())
    registry = load_registry(plugins)
    plan = running.plan(matrix, device=device, changes=changes, smoke=smoke, max_cells=max_cells,
                        registry=registry, only=only)
    # a large plan lives until the end; looking through it for cycles takes seconds
    gc.freeze()
    for problem in registry.problems:
        say(f"diffbench: {problem.message}", err=True)
    return plan
