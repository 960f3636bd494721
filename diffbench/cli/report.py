"""diffbench report"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffbench.cli.common import PLUGIN, UserPath
from diffbench.cli.output import say
from diffbench.errors import DiffbenchError

if TYPE_CHECKING:
    from diffbench.report.reading import Source
    from diffbench.report.written_files import Written


@click.command()
@click.argument("folders", nargs=-1, required=True, metavar="RUN [RUN...]", type=UserPath(path_type=Path))
@click.option("--out", type=UserPath(file_okay=False, path_type=Path),
              help="Folder of what is written; by default RUN, and RUN/exports for exports.")
@click.option("--format", "formats", multiple=True, metavar="md|latex|csv|parquet|svg|pdf",
              help="Export tables, numbers or figures; may be repeated.")
@click.option("--notebook", "names", multiple=True, metavar="NAME",
              help="Copy this notebook to RUN/notebooks, its path filled in; may be repeated.")
@click.option("--trajectories", is_flag=True, help="First draw how noise becomes images in up to four cells, where the "
                                                   "store has their weights.")
@click.option("--live", is_flag=True, help="Serve the page on this machine, refreshed as rows arrive, until Ctrl-C.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Of --live; a free one unless told otherwise.")
@PLUGIN
def command(folders: tuple[Path, ...], out: Path | None, formats: tuple[str, ...], names: tuple[str, ...],
            trajectories: bool, live: bool, port: int,
            plugins: tuple[str, ...]) -> None:
    """The page of results of RUN, report.html; or what a paper takes from it, or notebooks to go on in.

    Several runs are merged, from one machine or from several: name a folder with --out. A cell that several hold is
    shown as the first has it.
    """
    from diffbench.report import exports, notebook_files, reading, written_files

    several = len(dict.fromkeys(folders)) > 1
    if live and (several or formats or names or out):
        raise click.UsageError("--live serves one run and writes nothing: leave out the other runs, --out, --format "
                               "and --notebook")
    if several and (names or not out):
        raise click.UsageError("a notebook is copied beside one run: name one" if names
                               else "say where the merged report goes: --out FOLDER")
    source = reading.read(folders)
    if trajectories:
        from diffbench.report import trajectories as pictures

        drawn = written_files.Written()
        for run in source.runs:
            pictures.write_best(run, drawn)
        _say(drawn)
    if live:
        from diffbench.report import live as server

        server.serve(folders[0], port, plugins, say=say)
    elif formats or names:
        for done in [*([exports.write(source, formats, out)] if formats else []),
                     *(notebook_files.copy(name, folders[0]) for name in names)]:
            _say(done)
    else:
        _page(source, out or folders[0], plugins)


def _page(source: Source, folder: Path, plugins: tuple[str, ...]) -> None:
    from diffbench.registry.registry import load_registry
    from diffbench.report import page, written_files
    from diffbench.store import output_folder
    from diffbench.store.artefacts import Store
    from diffbench.store.disk import write_atomically

    rows = source.rows                                    # refused here where there is nothing to read
    if rows.empty:
        raise DiffbenchError(f"{source.folder} has no row yet: the run was stopped before the quality of any cell was "
                             "known; the same `diffbench run` goes on")
    content = page.html(source, Store.default(), load_registry(plugins).report_sections(rows, source.folder)).encode()
    if output_folder.is_run(folder):
        write_atomically(folder / page.FILE, content)
    else:
        written_files.write(folder, {page.FILE: content})
    for note in source.notes():
        say(f"note: {note}", err=True)
    say(f"  {folder / page.FILE}")


def _say(done: Written) -> None:
    for path in done.files:
        say(f"  {path}")
    for note in done.notes:
        say(f"note: {note}", err=True)
