"""diffbench export"""

from __future__ import annotations

import click

from diffbench.cli.common import UserPath
from diffbench.cli.output import say


@click.command()
@click.argument("run", type=UserPath(file_okay=False))
@click.option("--to", "target", required=True, type=UserPath(dir_okay=False), metavar="FILE.zip",
              help="The archive to write.")
@click.option("--results-only", is_flag=True, help="Rows, tables, pictures, matrix and plan, without the artefacts "
                                                   "they were made from.")
def command(run: str, target: str, results_only: bool) -> None:
    """Write the folder of results RUN, and every artefact its plan names, into one archive for `diffbench import`."""
    from pathlib import Path

    from diffbench.results.exporting import export_run
    from diffbench.store.artefacts import Store
    from diffbench.wording import in_bytes

    done = export_run(Path(run), Store.default(), Path(target), results_only=results_only)
    say(f"{target}: {done.files} files of results, {done.artefacts} artefacts, {in_bytes(done.size)}")
    if done.missing:
        say(f"note: {len(done.missing)} stages of the plan are not done, or not in this store, and are not in it",
            err=True)
    if done.left_out:
        say(f"note: left out, as no run writes it: {', '.join(done.left_out[:5])}"
            + (" ..." if len(done.left_out) > 5 else ""), err=True)
