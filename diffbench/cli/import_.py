"""diffbench import"""

from __future__ import annotations

import click

from diffbench.cli.common import UserPath
from diffbench.cli.output import say


@click.command(name="import")
@click.argument("file", type=UserPath(dir_okay=False))
@click.option("--out", type=UserPath(file_okay=False), help="Folder of the results; runs/NAME unless told otherwise.")
@click.option("--limit", type=click.FloatRange(min=0, min_open=True), default=100.0, show_default=True, metavar="GB",
              help="Refuse an archive that unpacks to more.")
def command(file: str, out: str | None, limit: float) -> None:
    """Unpack a run that `diffbench export` wrote: results into a folder, artefacts into the store.

    Everything is verified before anything is visible, nothing in it is executed, and what is there already is kept. A
    run of the same matrix then finds its stages done: an archive's numbers are as good as who made it.
    """
    from pathlib import Path

    from diffbench.results.importing import import_run
    from diffbench.store.artefacts import Store

    done = import_run(Path(file), Store.default(), Path(out) if out else None, limit=int(limit * 1e9))
    say(f"{done.folder}: {'results found there already' if done.results_found else 'results'}; "
               f"{done.artefacts} artefacts new in the store, {done.found} found there already")
