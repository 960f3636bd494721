"""diffbench export"""

from __future__ import annotations

import click


@click.command()
@click.argument("run", type=click.Path(file_okay=False))
@click.option("--to", "target", required=True, type=click.Path(dir_okay=False), metavar="FILE.zip", help="The archive to write.")
@click.option("--results-only", is_flag=True, help="Rows, tables, pictures, matrix and plan, without the artefacts they were made from.")
def command(run: str, target: str, results_only: bool) -> None:
    """Write the folder of results RUN, and every artefact its plan names, into one archive for `diffbench import`."""
    from pathlib import Path

    from diffbench.archive import export_run
    from diffbench.durable import in_bytes
    from diffbench.store import Store

    done = export_run(Path(run), Store.default(), Path(target), results_only=results_only)
    click.echo(f"{target}: {done.files} files of results, {done.artefacts} artefacts, {in_bytes(done.size)}")
    if done.missing:
        click.echo(f"note: {len(done.missing)} stages of the plan are not done, or not in this store, and are not in it", err=True)
    if done.left_out:
        click.echo(f"note: left out, as no run writes it: {', '.join(done.left_out[:5])}" + (" ..." if len(done.left_out) > 5 else ""), err=True)
