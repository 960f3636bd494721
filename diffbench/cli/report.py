"""diffbench report"""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--format", "formats", multiple=True, metavar="md|latex|csv|parquet|svg|pdf", help="Export tables, numbers or figures; may be repeated.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder of the exports; RUN/exports unless told otherwise.")
@click.option("--notebook", "names", multiple=True, metavar="NAME", help="Copy this notebook to RUN/notebooks, its path filled in; may be repeated.")
def command(run: Path, formats: tuple[str, ...], out: Path | None, names: tuple[str, ...]) -> None:
    """What a paper takes from RUN, and notebooks to go on in."""
    from diffbench.report import exports

    if not formats and not names:
        raise click.UsageError(f"say what to write: --format {'|'.join(exports.FORMATS)} or --notebook {'|'.join(exports.notebooks())}")
    done = [exports.write(run, formats, out)] if formats else []
    done += [exports.copy_notebook(name, run) for name in names]
    for written in done:
        for path in written.files:
            click.echo(f"  {path}")
        for note in written.notes:
            click.echo(f"note: {note}", err=True)
