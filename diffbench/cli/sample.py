"""diffbench sample"""

from __future__ import annotations

from typing import Any

import click

from diffbench.cli.common import PLUGIN, UserPath
from diffbench.cli.output import say


@click.command()
@click.argument("run", type=UserPath())
@click.argument("row", required=False)
@click.option("--out", required=True, type=UserPath(dir_okay=False), metavar="FILE.png", help="The picture to write.")
@click.option("--count", type=click.IntRange(min=1), help="How many images; by default as many as the row has.")
@click.option("--scheduler", metavar="NAME", help="Instead of the row's: a name, or 'ddim: {steps: 20}' as in a "
                                                  "matrix.")
@click.option("--steps", type=click.IntRange(min=1), help="Steps of the scheduler.")
@click.option("--scale", type=float, help="Scale of the guidance.")
@click.option("--labels", metavar="N[,N...]", help="The class of each image, or one for all.")
@click.option("--seed", type=click.IntRange(min=0), help="Of the noise.")
@click.option("--device", metavar="auto|cpu|cuda[:N]", help="By default the kind of device that the row was drawn on.")
@PLUGIN
def command(run: str, row: str | None, out: str, count: int | None, scheduler: str | None, steps: int | None,
            scale: float | None, labels: str | None, seed: int | None, device: str | None,
            plugins: tuple[str, ...]) -> None:
    """Draw images from the trained model of a row, and write them as one picture.

    RUN is a folder of results, with ROW a cell id or its beginning, or conditions such as scheduler=ddim,steps=50 that
    mean one row; or a folder that Model.save wrote, without ROW. Nothing is trained and the run is left as it is.
    """
    import io
    from pathlib import Path

    from PIL import Image

    from diffbench.api.loading_models import load_model
    from diffbench.report.grids import grid
    from diffbench.store.artefacts import write_atomically

    classes = None if labels is None else _classes(labels)
    model = load_model(run, row, device=device, plugins=plugins)
    samples = model.sample(count, labels=classes, scheduler=_scheduler(scheduler), steps=steps, scale=scale, seed=seed)
    sample_labels = None if samples.labels is None else samples.labels.numpy()
    data, numbers = io.BytesIO(), samples.images.numpy()
    Image.fromarray(grid(numbers, sample_labels)).save(data, "PNG")
    write_atomically(Path(out), data.getvalue())
    say(f"{out}: {len(numbers)} images by {model!r}, {samples.nfe:g} network evaluations each")


def _classes(text: str) -> int | list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"{text!r} is no class number or list of them; write 3, or 0,1,2",
                                 param_hint="--labels") from None
    return numbers if "," in text else numbers[0]


def _scheduler(text: str | None) -> Any:
    from diffbench.errors import DiffbenchError, MatrixError
    from diffbench.matrix import yaml_file

    if text is None:
        return None
    try:
        return yaml_file.parse(text, "--scheduler").data
    except MatrixError as error:
        raise DiffbenchError(error.rendered[0]) from None
